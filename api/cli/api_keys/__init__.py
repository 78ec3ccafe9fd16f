"""`ai-factory api-keys …`: the keys of those who use the API. (`ai-factory key` is about the installation's own.)"""
