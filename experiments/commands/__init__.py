"""The commands of the program, one file each; found by file name."""
