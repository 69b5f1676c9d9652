"""Shell completion: a script that holds all names, so that no Python starts while one types."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from jsonargparse import ArgumentParser

from datamodules.extraction.extractors import registry
from datamodules.extraction.index import INDEXES
from datamodules.extraction.recipes import RECIPES
from ifmmin.checkpoints.compatibility import FOLLOWS_THE_DATA
from ifmmin.cli.arguments import Parser, defaults_of
from ifmmin.cli.commands import IfmminCLI
from ifmmin.cli.console import clean_process
from ifmmin.cli.demo import make_parser as make_demo_parser
from ifmmin.cli.extract import make_parser
from ifmmin.cli.import_corpus import SOURCES
from ifmmin.cli.import_corpus import make_parser as make_import_parser
from ifmmin.cli.main import COMMANDS
from ifmmin.cli.media_words import OPTIONS
from ifmmin.cli.save import make_parser as make_save_parser
from ifmmin.discovery import corpus_names, discover_models, find_corpus

SHELLS = ("bash", "zsh")

_SCRIPT = """\
# Completion of ifmmin for {shell}: {how}
{start}_ifmmin() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} names="" i
  if (( COMP_CWORD == 1 )); then
    names={commands}
  elif [[ $command == extract ]] && (( COMP_CWORD == 2 )); then
    names={recordings}
  elif [[ $command == import ]] && (( COMP_CWORD == 2 )); then
    names={sources}
  elif [[ $command == extract && $before == --recipe ]]; then
    names={recipes}
  elif [[ $command == extract && ( $before == --audio || $before == --visual || $before == --text ) ]]; then
    names={extractors}
  elif [[ $before == --model || $before == --model.help ]]; then
    names={models}
  elif [[ $before == --data || $before == --data.help ]]; then
    names={corpora}
  elif [[ $word == -* ]]; then
    case $command in
{options}
    esac
    for (( i = 2; i < COMP_CWORD; i++ )); do
      case ${{COMP_WORDS[i-1]}}:${{COMP_WORDS[i]}} in
{classes}
      esac
    done
  else
    COMPREPLY=( $(compgen -f -- "$word") )
    return
  fi
  COMPREPLY=( $(compgen -W "$names" -- "$word") )
}}
complete -o filenames -F _ifmmin ifmmin
"""


# A shell of the user's has loaded the first already, a bare one has not; each may ask whether its files are safe.
_ZSH = """\
(( $+functions[compdef] )) || { autoload -U +X compinit && compinit -i }
autoload -U +X bashcompinit && bashcompinit
"""


def completion_command(argv: Sequence[str]) -> int:
    """Print the script; the exit code, 0."""
    parser = Parser(prog="completion", description=__doc__)
    parser.add_argument("shell", choices=SHELLS, help='source it: eval "$(ifmmin completion bash)"')
    print(completion_script(parser.parse_args(list(argv)).shell), end="")
    return 0


def completion_script(shell: str) -> str:
    """The script for a shell of :data:`SHELLS`."""
    options = {command: options_of(command) for command in IfmminCLI.subcommands()}
    options = {name: options.get(name, ["--help"]) for name in COMMANDS}
    options["check"] += ["--data", "--data.help", "--json", "--model", "--model.help", "--seed_everything"]
    for command, parser in (
        ("demo", make_demo_parser()),
        ("extract", make_parser()),
        ("import", make_import_parser()),
        ("save", make_save_parser()),
    ):
        options[command] = sorted(name for name in parser._option_string_actions if name.startswith("--"))
    options["predict"] += sorted(f"--{name}" for name in OPTIONS if f"--{name}" not in options["predict"])
    models = {name: _of_class("model", model) for name, model in sorted(discover_models().items())}
    corpora = {name: _of_class("data", find_corpus(name)) for name in corpus_names()}
    classes = [f"        --model:{name}) {_adding(names)}" for name, names in models.items()]
    classes += [f"        --data:{name}) {_adding(names)}" for name, names in corpora.items()]
    return _SCRIPT.format(
        shell=shell,
        how=f'eval "$(ifmmin completion {shell})"',
        start=_ZSH if shell == "zsh" else "",
        commands=_words(COMMANDS),
        models=_words(models),
        corpora=_words(corpora),
        recordings=_words(INDEXES),
        sources=_words(SOURCES),
        recipes=_words(RECIPES),
        extractors=_words([*registry.names(), "none"]),
        options="\n".join(f"      {command}) names={_words(names)} ;;" for command, names in options.items()),
        classes="\n".join(classes),
    )


class _BuiltError(Exception):
    """Holds the parsers of the commands, which are all that is wanted."""


class _Options(IfmminCLI):
    """Stops once the parsers are built."""

    def parse_arguments(self, parser: ArgumentParser, args: object) -> None:
        raise _BuiltError(self._subcommand_parsers)


def options_of(command: str) -> list[str]:
    """All options of a command that trains or scores, but those of a model or a corpus."""
    with clean_process([command]):
        try:
            _Options()
        except _BuiltError as built:
            parser = built.args[0][command]
    return sorted(name for name in parser._option_string_actions if name.startswith("--"))


def _of_class(key: str, owner: type) -> list[str]:
    hidden = {*FOLLOWS_THE_DATA, "seed", "self", "args", "kwargs"}
    return [f"--{key}.{name}" for name in sorted(defaults_of(owner)) if name not in hidden]


def _adding(names: Iterable[str]) -> str:
    return f"names+={_words(['', *names])} ;;"


def _words(names: Iterable[str]) -> str:
    return shlex.quote(" ".join(names))
