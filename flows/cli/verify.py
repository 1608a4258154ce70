"""`lmeraser verify`: check certificates offline. It imports neither the engine nor a database nor anything of learning."""

import argparse
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import Result
from lmeraser.core.errors import BadInputError

if TYPE_CHECKING:
    from lmeraser.prove.timestamp import Timestamp
    from lmeraser.prove.verify import Certificate, Verdict

HELP = "check certificates, or an exported model, offline: signature, content, chain"
EXIT_CODES = {0: "valid", 1: "not valid; the line on standard error says why", 2: "a file cannot be read, or bad input"}
EXAMPLES = [
    "lmeraser verify certificates/*.json",
    "lmeraser verify certificates/*.json --key public.pem --openssl",
    "lmeraser verify certificates/*.json --tsa-root authority.pem",
]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "certificate",
        nargs="+",
        type=Path,
        metavar="CERTIFICATE",
        help="in the order of their numbers; or one folder that `lmeraser export` wrote",
    )
    parser.add_argument("--key", type=Path, metavar="PUBLIC.pem", help="the issuer's public keys, oldest first")
    parser.add_argument("--head", metavar="SEQ:SHA256|FILE", help="the last certificate as you know it: nothing is cut off")
    parser.add_argument(
        "--tsa-root",
        type=Path,
        metavar="ROOT.pem",
        help="roots of the time-stamp authority: also check the timestamp beside each certificate",
    )
    parser.add_argument("--openssl", action="store_true", help="also print shell lines that check the signature with OpenSSL")


def act(options: argparse.Namespace) -> Result:
    """Raises: CertificateError (exit status 1); BadInputError if a file cannot be read (2)."""
    from lmeraser.prove.home import Home, check_head_file
    from lmeraser.prove.keys import load_public
    from lmeraser.prove.verify import openssl_way, parse_head, shown, verify_files

    files: list[Path] = options.certificate
    if len(files) == 1 and files[0].is_dir():
        return _export(files[0], options)
    for place, path in enumerate(files, start=1):
        if not path.is_file():
            raise BadInputError(f"{shown(path, place, len(files))}: the file does not exist; expected a file of certificates/")
    head = parse_head(options.head) if options.head is not None else None
    home = Home.of(files) if options.key is None else None
    keys = home.keys if home else options.key
    keys_from = "data/certificate-keys.pem beside the certificates" if home else "the file that --key names"
    verdict = verify_files(files, load_public(keys), head, home.project() if home else None)
    folder_of = [file.resolve().parent for file in files]
    for folder in sorted(set(folder_of)):
        inside = [certificate for certificate, parent in zip(verdict.certificates, folder_of, strict=True) if parent == folder]
        check_head_file(folder, inside, at_home=home is not None)
    stamps = _timestamps(files, verdict, options.tsa_root)
    lines = _lines(verdict, keys_from, at_home=home is not None) + _timestamp_lines(files, verdict, stamps)
    if options.openssl:
        for file, certificate in zip(files, verdict.certificates, strict=True):
            lines += openssl_way(file, keys, verdict.keys.index(certificate.key_id) + 1)
    return _result(verdict, keys_from, stamps), [*lines, "what this does not show:", *(f"- {text}" for text in verdict.limits)]


def _export(folder: Path, options: argparse.Namespace) -> Result:
    from lmeraser.prove.export import check_export
    from lmeraser.prove.keys import load_public

    if options.key is None:
        raise BadInputError("an export holds no key; name the issuer's public keys with --key")
    if options.head is not None or options.openssl or options.tsa_root is not None:
        raise BadInputError("--head, --openssl and --tsa-root are for certificates; leave them out for an export")
    checked = check_export(folder, load_public(options.key))
    lines = [
        f"valid: export of {checked.exported_at}, {checked.files} files, key {checked.key_id[:16]}",
        f"version: {checked.model_version}",
        f"certificates before it: {checked.certificates}, the last one {(checked.head or 'none')[:16]}",
    ]
    if checked.others:
        lines.append(f"not named, and of no account: {checked.others} files")
    lines += ["what its holder must do:", *(f"- {text}" for text in checked.holder)]
    lines += ["what this does not show:", *(f"- {text}" for text in checked.limits)]
    return {"valid": True, **asdict(checked)}, lines


def _timestamps(files: list[Path], verdict: "Verdict", roots: Path | None) -> "list[Timestamp]":
    """The timestamp of each certificate, checked; none where no roots were named. Raises: CertificateError, BadInputError."""
    from lmeraser.prove.timestamp import load_roots, read_timestamp, timestamp_path, verify_timestamp
    from lmeraser.prove.verify import read

    if roots is None:
        return []
    trusted = load_roots(roots, "--tsa-root")
    return [
        verify_timestamp(read_timestamp(timestamp_path(path), of.file), read(path, of.file), trusted, of.file)
        for path, of in zip(files, verdict.certificates, strict=True)
    ]


def _timestamp_lines(files: list[Path], verdict: "Verdict", stamps: "list[Timestamp]") -> list[str]:
    from lmeraser.prove.timestamp import timestamp_path

    there = sum(timestamp_path(path).exists() for path in files)
    if there and not stamps:
        return [f"timestamps: {there}, not checked; --tsa-root ROOT.pem names the roots of the authority that made them"]
    return [
        f"timestamp: certificate {of.sequence} existed at {stamp.at}, says {stamp.authority or 'an authority of these roots'}"
        for of, stamp in zip(verdict.certificates, stamps or (), strict=bool(stamps))
    ]


def _result(verdict: "Verdict", keys_from: str, stamps: "list[Timestamp]") -> dict[str, Any]:
    return {
        "valid": True,
        "certificates": [
            {
                "file": certificate.file,
                "format": certificate.version,
                "project": certificate.project,
                "request_id": certificate.request_id,
                "sequence": certificate.sequence,
                "sha256": certificate.digest,
                "key_id": certificate.key_id,
                "completed_at": certificate.completed_at,
                "key_changed": certificate.break_from is not None,
                "people_root": certificate.retained,
                "audit_key_id": certificate.audit_key,
                "rebuild_share": certificate.rebuild_share,
                "timestamp": asdict(stamp) if stamp else None,
            }
            for certificate, stamp in zip_longest(verdict.certificates, stamps)
        ],
        "chain": verdict.chain,
        "anchored": verdict.anchored,
        "keys": list(verdict.keys),
        "keys_from": keys_from,
        "limits": verdict.limits,
    }


def _lines(verdict: "Verdict", keys_from: str, at_home: bool) -> list[str]:
    """Args: at_home: whether the keys are those that lie beside the certificates."""
    first, last = verdict.certificates[0], verdict.certificates[-1]
    lines = []
    for certificate in verdict.certificates:
        replaced = ", signed break: the key was replaced" if certificate.break_from else ""
        lines.append(
            f"valid: certificate {certificate.sequence}, request {certificate.request_id}, completed {certificate.completed_at}, "
            f"key {certificate.key_id[:16]}{_told(certificate)}{replaced}"
        )
    lines.append(f"keys: {', '.join(verdict.keys)} from {keys_from}")
    if at_home:
        lines.append("whoever can write here can exchange keys too: compare their ids with what the issuer told you elsewhere")
    lines.append("chain: whole from the first on" if verdict.chain else f"chain: from {first.sequence} on only")
    lines.append(
        "anchored: the last one is the head that you gave"
        if verdict.anchored
        else f"not anchored: later ones could be missing; check with --head {last.sequence}:SHA256 kept elsewhere"
    )
    return lines


def _told(certificate: "Certificate") -> str:
    """What a certificate of this format tells of the retained people and of the project, and an older one does not."""
    if certificate.retained:
        return f", {len(certificate.subjects)} people absent from the retained ones (root {certificate.retained[:16]})"
    unnamed = "" if certificate.project else ", and does not say of which project and state"
    return f", format {certificate.version}: it proves nobody absent from the retained people{unnamed}"
