"""What can go wrong outside the code, kind by kind: a table of cases each, with the line that is expected."""
