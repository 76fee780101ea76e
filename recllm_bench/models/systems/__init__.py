"""Conversational systems that are built on a chat model: it names, orders or plans, and nothing of it is trained."""
