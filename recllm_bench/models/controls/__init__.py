"""Controls: how far the words go without the method that is measured."""
