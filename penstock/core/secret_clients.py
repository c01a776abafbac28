"""Clients that take a password behind a letter: `mysql -pX`, `sshpass -p X`, `redis-cli -a X`; as a command
line or as a list of its words. Of such a letter no name tells what it holds, so
the client must stand before it.

Both patterns have what stays as their first group and the password as their second.
"""

from __future__ import annotations

import re

_STRING = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
_WORDS = r"""(?:(?!, \w)[^\n|;&]){0,300}?[\s"']"""
"""Other words of the same command; a sentence that goes on after a comma is none."""
# Clients whose `-p` takes the password without a space, and those below take it with
# one.
_ATTACHED_TO_P = r"mysql\w{0,20}|mariadb[\w-]{0,20}|7za?"
_LOGINS = r"(?:docker|podman|helm|oc|buildah|skopeo) login"
# Each client with its own letter: elsewhere the same letter is a port or a path.
_BEHIND = (
    rf"(?:sshpass|mongo\w{{0,20}}|cqlsh|{_LOGINS})\b{_WORDS}-p",
    rf"redis-cli\b{_WORDS}-a",
    rf"(?:sqlcmd|bcp|(?:un)?zip)\b{_WORDS}-P",
    rf"ldap[a-z]{{1,12}}\b{_WORDS}-w",
)

ATTACHED_HINTS = ("mysql", "mariadb", "7z")
ATTACHED = re.compile(
    rf"""(?<![\w.-])((?:{_ATTACHED_TO_P})(?=[\s"',]){_WORDS}-p)({_STRING}|[^\s"'<>`|;&,]{{1,200}})"""
)
"""`-pX`; alone, `-p` asks for it, and the next word is a database."""
BEHIND_HINTS = (
    "sshpass",
    "redis-cli",
    "mongo",
    "sqlcmd",
    "bcp",
    "ldap",
    "cqlsh",
    "login",
    "zip",
)
BEHIND = re.compile(
    rf"""(?<![\w.-])((?:{"|".join(_BEHIND)})(?:[ \t]{{1,4}}|["'],[ \t]{{0,4}}|(?=[^\s"',])))"""
    rf"""({_STRING}|[^\s"'<>`|;&,-][^\s"'<>`|;&,]{{0,200}})"""
)
"""`-p X`, and where the client takes it so, `-pX`."""
