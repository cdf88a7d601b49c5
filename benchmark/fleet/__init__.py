"""The controller's talk with nodes: the only code that speaks with them. It knows ssh and a run's files, no Ansible."""
