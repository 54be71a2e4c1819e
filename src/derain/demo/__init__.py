"""`derain demo`: a page on this computer that takes the rain off one picture at a time."""
