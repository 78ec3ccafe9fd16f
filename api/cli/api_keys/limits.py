"""How much may be asked under a key: the names of its limits, and what they are of."""

LIMITS = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute, of prompts and answers together",
    "requests_at_once": "requests at a time",
}
