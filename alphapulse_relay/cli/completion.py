"""``signal-relay completion``: prints the script that lets a shell complete our commands."""

import click
from click.shell_completion import get_completion_class

from alphapulse_relay.cli.words import examples

PROGRAM = "signal-relay"
INSTALL = {
    "bash": """add to ~/.bashrc: eval "$(signal-relay completion bash)\"""",
    "zsh": """add to ~/.zshrc, after compinit: eval "$(signal-relay completion zsh)\"""",
    "fish": "signal-relay completion fish > ~/.config/fish/completions/signal-relay.fish",
}


@click.command(
    epilog=examples(*(f"{shell}: {how}" for shell, how in INSTALL.items()), title="To install"),
)
@click.argument("shell", type=click.Choice(tuple(INSTALL)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    maker = get_completion_class(shell)
    if maker is None:
        raise click.ClickException(f"no completion for {shell}")
    variable = f"_{PROGRAM}_COMPLETE".replace("-", "_").upper()
    script = maker(ctx.find_root().command, {}, PROGRAM, variable).source()
    click.echo(f"{script}\n# To install: {INSTALL[shell]}")
