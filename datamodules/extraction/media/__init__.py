"""Media files: what is decoded from them, and what is missing in them."""
