"""Rows: the numbered contract, a module a topic. `everything` registers them."""
