"""What the mirror knows: tags, links, negative answers."""
