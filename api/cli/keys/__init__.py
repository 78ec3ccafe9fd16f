"""`ai-factory key …` and `gateway …`: the installation's keys, and what a gateway elsewhere needs of them."""
