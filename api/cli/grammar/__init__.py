"""The grammar of the command line, group by group. Each command names the function that carries it out."""
