"""ReLRec: a frozen language model that learns items, users and their labels."""
