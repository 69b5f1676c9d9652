"""How long training, prediction and start take, against the published code and as a corpus grows."""
