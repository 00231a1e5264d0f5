"""Bytes on this disk: verified blobs, spools, leases."""
