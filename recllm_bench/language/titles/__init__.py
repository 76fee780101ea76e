"""Lists of catalogue titles, written by a language model: token tries, layouts, constrained and free decoding."""
