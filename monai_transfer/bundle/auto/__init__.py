"""``strategy=auto``: one model out of several ways of using the source, decided before a test case is seen."""
