"""Labelled text: the bundled tasks, and how somebody's own file becomes one."""
