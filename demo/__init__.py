"""``make demo``: a real Envoy behind the mirror, and an outage, told step by step."""
