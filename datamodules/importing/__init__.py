"""Feature packs and folders of others in, a corpus in the library's layout out; nothing in them is executed."""
