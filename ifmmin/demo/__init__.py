"""A page in the browser on which sensors are switched off. Needs the extra ``demo``."""
