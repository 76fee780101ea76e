"""What precedes a label: an opening with one slot for the token, one drawn at random for each example."""

from __future__ import annotations

SLOT = "{token}"

USER_PROMPTS = (
    "Here is a short profile of {token}:",
    "What {token} likes, in a few words:",
    "The taste of {token} can be described like this:",
    "These notes explain what {token} enjoys:",
    "A summary of the preferences of {token}:",
    "Someone who knows {token} well would say:",
    "Things that appeal to {token}:",
    "To recommend something to {token}, one should know this:",
    "The following text is about {token}:",
    "About the person {token}:",
)
"""Openings of a user's label."""

ITEM_PROMPTS = (
    "Here is a short profile of {token}:",
    "What {token} offers, in a few words:",
    "The main features of {token}:",
    "These notes explain who would enjoy {token}:",
    "A summary of what people say about {token}:",
    "Someone who has tried {token} would say:",
    "Reasons to choose {token}:",
    "Before choosing {token}, one should know this:",
    "The following text is about {token}:",
    "About the item {token}:",
)
"""Openings of an item's label."""
