"""The controller's sessions with nodes, and the only code that talks to them. It uses ssh and knows no Ansible."""
