"""Feature corpora on disk: layouts, HDF5 features, label files, statistics and the check."""
