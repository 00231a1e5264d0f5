"""Tests of listing, refreshing, purging and collecting."""
