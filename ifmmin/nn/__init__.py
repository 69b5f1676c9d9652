"""Networks and losses as plain ``torch.nn``: nothing here imports Lightning."""
