"""The datasets that are known by name, one file each: what is in this folder is found."""
