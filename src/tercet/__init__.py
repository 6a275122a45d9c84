"""Tercet: a memory operating system for AI."""
