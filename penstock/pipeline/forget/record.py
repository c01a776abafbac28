"""The report on what was forgotten: references and counts, signed; no value of a row.

forget/<id>.json     signed with HMAC-SHA-256 where the environment has a key; else its hash is in the
forget/<id>.md       audit log, which chains it with all that was done before and after
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from penstock.contracts.privacy import key_of
from penstock.core import audit
from penstock.core.identity import canonical
from penstock.core.store import Store
from penstock.core.visible import code
from penstock.core.wording import counted
from penstock.pipeline.forget.conditions import Condition

FOLDER = "forget"
REMAINS = (
    "The weights of the runs and bundles that saw the rows were learnt from them. Withdraw these bundles; a"
    " model of the new version (`--retrain`) learnt nothing from the rows.",
    "What cleaners and features of those bundles learnt (means, vocabularies) counts the rows, too.",
    "Recipes in runs and bundles stay as their users wrote them.",
    "Hashes of the rows' ids stay in the store (index/forgotten-rows), so that no later version of the"
    " dataset has the rows. A row without a key is known by its file: in a file that changed, it is a new"
    " row.",
    "The source, copies of answers, exported files, bundles that were copied out of the store, and copies on"
    " other machines are not within reach. Take the rows out of the source.",
    "Snapshots and backups of the disk, and earlier versions of a bucket's objects, go by their own rules.",
)
"""What forgetting cannot do; part of every report."""


def sign(report: Mapping[str, Any], condition: Condition) -> dict[str, Any]:
    """The report with its signature."""
    text = canonical(report)
    if condition.is_keyed:
        key = key_of(condition.key_env, "forget report").encode()
        signature = {
            "by": "HMAC-SHA-256",
            "key_env": condition.key_env,
            "digest": hmac.new(key, text.encode(), hashlib.sha256).hexdigest(),
        }
    else:
        signature = {
            "by": "SHA-256 in the audit log",
            "why": f"the environment has no key in {condition.key_env}, so nothing proves who wrote it",
            "digest": hashlib.sha256(text.encode()).hexdigest(),
        }
    return {**report, "signature": signature}


def is_signed(report: Mapping[str, Any], condition: Condition) -> bool:
    """Whether a report is as it was signed."""
    bare = {word: value for word, value in report.items() if word != "signature"}
    return hmac.compare_digest(
        sign(bare, condition)["signature"]["digest"], report["signature"]["digest"]
    )


def write(store: Store, id: str, report: Mapping[str, Any]) -> str:
    """Write a signed report, and note it in the audit log.

    Returns:
        Its name in the store, without its ending.

    Raises:
        StoreError: the store, or its log, cannot be written.
    """
    name = f"{FOLDER}/{id}"
    store.write_text(
        f"{name}.json", text=json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    )
    store.write_text(f"{name}.md", text=markdown(report))
    for version in report["versions"]:
        # An erasure that is not in the log did not end: it is an error here.
        audit.append(
            store,
            "erased",
            version["dataset"],
            rows=sum(version["rows"].values()),
            quarantined=version["quarantined"],
            child=version["child"],
            destroyed=[
                *version["feeds_destroyed"],
                *version["bundles_destroyed"],
                *version["reports_destroyed"],
            ],
            report=name,
            digest=report["signature"]["digest"],
        )
    return name


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    signature = report["signature"]
    lines = [
        "# Rows that were forgotten",
        "",
        f"- when: {report['time']}",
        f"- condition: {code(report['condition']['redacted'])}",
        f"- signature: {signature['by']}, `{signature['digest']}`",
    ]
    lines += [f"- {signature['why']}"] if "why" in signature else []
    for version in report["versions"]:
        rows = ", ".join(f"{count:,} {split}" for split, count in version["rows"].items())
        lines += [
            "",
            f"## {code(version['dataset'])}",
            "",
            f"Destroyed. Without the rows: {code(version['child'])}.",
            "",
            f"- rows: {rows}, {version['quarantined']:,} in quarantine",
        ]
        for word, references in version.items():
            if isinstance(references, list) and references:
                listed = ", ".join(map(code, references))
                lines.append(f"- {word.replace('_', ' ')}: {listed}")
        lines += [
            f"- {counted(count, word)} in records of runs"
            for word, count in [("line or file", version.get("records_blanked", 0))]
            if count
        ]
    if report["not_matched"]:
        lines += ["", "## Not matched", ""]
        for each in report["not_matched"]:
            may = " Rows of the same person may be in it." if each["hidden"] else ""
            lines.append(f"- {code(each['dataset'])}: {each['why']}.{may}")
    lines += ["", "## What remains", "", *(f"- {text}" for text in report["remains"]), ""]
    return "\n".join(lines)
