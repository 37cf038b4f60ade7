"""The pages, a module for each menu entry: from a `Page` to an answer. They look, and change nothing."""
