"""`headworks models`: looks at a folder of models before a server runs, and administers those of a running server."""

from __future__ import annotations

import click

from headworks_server.models_command import folder, orders, questions


@click.group()
def models() -> None:
    """Look at a folder of models, or at the models of a running server, and move these.

    A server lets itself be administered where it was started with --admin.
    """


for command in (folder.check, questions.list_models, questions.stats, *orders.ALL):
    models.add_command(command)
