"""Provenance and summary of a set: who signed them, what they are about, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.cli.main import main
from edgekit.core import attestation, provenance, set_files, trust
from edgekit.core.attestation import Statement, verify_attestation
from edgekit.core.digest import Digest
from edgekit.core.strict_json import encode_canonical
from edgekit.errors import DigestError, FormatError, SetShapeError, SignatureError
from edgekit.exit_codes import ExitCode
from edgekit.operations.verify import attested, inspection
from edgekit.system.bundle_set import VerifiedSet
from tests.support.sets import RootBuilder, SetBuilder, build_of, damaged, signer, verify

SUBJECTS = {"manifest.json": Digest.of(b"m"), "vol-0001.ekv": Digest.of(b"v")}
STATEMENT = attestation.encode_statement(SUBJECTS, "urn:test", {"a": 1})


def signed(payload: bytes, *names: str, pae: Callable[[bytes], bytes] | None = None) -> bytes:
    """An envelope with both signatures of these people."""
    message = (pae or attestation.pre_authentication_encoding)(payload)
    keys = [key for name in names for key in (signer(name).classical, signer(name).post_quantum)]
    return attestation.encode_attestation(payload, [key.sign(message) for key in keys])


def check(data: bytes, root: RootBuilder | None = None) -> Statement:
    return verify_attestation((root or RootBuilder()).trusted(), data, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with provenance and summary."""
    builder = SetBuilder(build=build_of())
    return builder.write(tmp_path_factory.mktemp("attested") / "set")


def verified(folder: Path) -> VerifiedSet:
    return verify(SetBuilder().host(), folder)


class TestEnvelope:
    def test_what_was_signed_is_what_is_read(self) -> None:
        statement = check(signed(STATEMENT, "ann", "ben"))
        assert statement.subjects == SUBJECTS
        assert statement.predicate_type == "urn:test"
        assert statement.predicate == {"a": 1}
        assert statement.payload == STATEMENT
        assert statement.signers == ("ann", "ben")

    def test_the_encoding_is_that_of_dsse(self) -> None:
        # The example of the DSSE protocol document, with our type.
        assert attestation.pre_authentication_encoding(b"hello world") == (
            b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"
        )

    def test_one_signer_is_not_two(self) -> None:
        with pytest.raises(SignatureError) as caught:
            check(signed(STATEMENT, "ann"))
        assert caught.value.found == "ann"

    def test_a_stranger_does_not_count(self) -> None:
        with pytest.raises(SignatureError):
            check(signed(STATEMENT, "ann", "mallory"))

    def test_one_key_of_a_pair_is_not_enough(self) -> None:
        message = attestation.pre_authentication_encoding(STATEMENT)
        for kind in ("classical", "post_quantum"):
            keys = [getattr(signer(name), kind) for name in ("ann", "ben")]
            data = attestation.encode_attestation(STATEMENT, [key.sign(message) for key in keys])
            with pytest.raises(SignatureError):
                check(data)

    def test_policies_choose_the_key_that_decides(self) -> None:
        message = attestation.pre_authentication_encoding(STATEMENT)
        for policy, kind in (("cnsa2", "post_quantum"), ("classical", "classical")):
            keys = [getattr(signer(name), kind) for name in ("ann", "ben")]
            data = attestation.encode_attestation(STATEMENT, [key.sign(message) for key in keys])
            assert check(data, RootBuilder(policy=policy)).signers == ("ann", "ben")

    def test_a_signature_for_a_release_is_none_for_an_attestation(self) -> None:
        with pytest.raises(SignatureError):
            check(signed(STATEMENT, "ann", "ben", pae=trust.pre_authentication_encoding))

    def test_another_payload_under_the_same_signatures(self) -> None:
        envelope = json.loads(signed(STATEMENT, "ann", "ben"))
        other = attestation.encode_statement(SUBJECTS, "urn:test", {"a": 2})
        envelope["payload"] = base64.b64encode(other).decode()
        with pytest.raises(SignatureError):
            check(encode_canonical(envelope))

    @pytest.mark.parametrize(
        "change",
        [
            {"payloadType": "application/vnd.tuf+json"},
            {"payload": "e30"},
            {"extra": 1},
            {"signatures": [{"keyid": "0" * 64, "sig": ""}] * 2},
            {"signatures": [{"keyid": f"{n:064x}", "sig": ""} for n in range(65)]},
        ],
    )
    def test_malformed_envelopes(self, change: dict[str, object]) -> None:
        envelope = json.loads(signed(STATEMENT, "ann", "ben"))
        with pytest.raises(FormatError):
            check(encode_canonical(envelope | change))

    @pytest.mark.parametrize(
        "payload",
        [
            b"{}",
            STATEMENT.replace(b"Statement/v1", b"Statement/v0"),
            STATEMENT.replace(b"vol-0001.ekv", b"manifest.json"),
            STATEMENT.replace(b'"sha384"', b'"sha256"', 1),
            STATEMENT[:-1] + b',"more":1}',
            STATEMENT + b" ",
        ],
    )
    def test_malformed_statements_that_are_signed(self, payload: bytes) -> None:
        with pytest.raises(FormatError):
            check(signed(payload, "ann", "ben"))

    def test_nothing_is_parsed_before_its_signature(self) -> None:
        with pytest.raises(SignatureError):
            check(signed(b"not even JSON", "mallory"))

    def test_every_flipped_bit_of_an_envelope_is_refused(self) -> None:
        data = signed(STATEMENT, "ann", "ben")
        for offset in range(0, len(data), 97):
            flipped = bytearray(data)
            flipped[offset] ^= 1
            with pytest.raises((FormatError, SignatureError)):
                check(bytes(flipped))


class TestSet:
    def test_subjects_are_the_files_of_the_set(self, folder: Path) -> None:
        statement = verify_attestation(
            RootBuilder().trusted(), (folder / set_files.PROVENANCE).read_bytes(), "provenance"
        )
        names = ["manifest.json", "volumes.json", *(p.name for p in folder.glob("vol-*.ekv"))]
        assert statement.subjects == {
            name: Digest.of((folder / name).read_bytes()) for name in names
        }

    def test_provenance_and_summary_are_shown(self, folder: Path) -> None:
        table = inspection(verified(folder))
        assert table["provenance"] == {
            "builder": "edgekit",
            "edgekit": "0.1.0",
            "recipe": str(Digest.of(b"recipe")),
            "lock": str(Digest.of(b"lock")),
            "inputs": 3,
            "signed_by": ["ann", "ben"],
        }
        assert table["summary"]["result"] == "PASSED"
        assert table["summary"]["policy"] == "urn:edgekit:policy:hybrid"
        assert table["summary"]["levels"] == list(provenance.LEVELS)

    def test_the_summary_names_the_provenance_and_the_root(self, folder: Path) -> None:
        document = json.loads(attested(verified(folder)).document(set_files.SUMMARY))
        envelope = (folder / set_files.PROVENANCE).read_bytes()
        assert document["predicate"]["inputAttestations"] == [
            {"uri": set_files.PROVENANCE, "digest": {"sha384": Digest.of(envelope).value}}
        ]
        fingerprint = RootBuilder().trusted().fingerprint
        assert document["predicate"]["policy"]["digest"] == {"sha384": fingerprint}

    def test_every_input_is_in_the_provenance(self, folder: Path) -> None:
        document = json.loads(attested(verified(folder)).document(set_files.PROVENANCE))
        assert document["predicateType"] == "https://slsa.dev/provenance/v1"
        found = document["predicate"]["buildDefinition"]["resolvedDependencies"]
        assert [item["name"] for item in found] == ["input-0", "input-1", "input-2"]
        assert found[0]["digest"] == {"sha256": Digest.of(b"0", "sha256").value}

    def test_the_same_build_makes_the_same_statements(self, folder: Path, tmp_path: Path) -> None:
        again = SetBuilder(build=build_of()).write(tmp_path / "again")
        first, second = (attested(verified(place)).documents for place in (folder, again))
        assert first[set_files.PROVENANCE] == second[set_files.PROVENANCE]

    @pytest.mark.parametrize("name", [set_files.PROVENANCE, set_files.SUMMARY])
    def test_a_flipped_bit_is_refused(self, folder: Path, name: str) -> None:
        size = (folder / name).stat().st_size
        for offset in (0, size // 2, size - 1):
            with damaged(folder / name, offset), pytest.raises(DigestError):
                verified(folder)

    def test_a_missing_one_is_refused(self, folder: Path, tmp_path: Path) -> None:
        place = folder / set_files.SUMMARY
        away = place.rename(tmp_path / "away")
        try:
            with pytest.raises(SetShapeError):
                verified(folder)
        finally:
            away.rename(place)

    @pytest.mark.parametrize("name", ["attest/more.json", "attest/UP.json", "attest/x.txt"])
    def test_a_file_beside_them_is_foreign(self, folder: Path, name: str) -> None:
        (folder / name).write_bytes(b"{}")
        try:
            with pytest.raises(SetShapeError):
                verified(folder)
        finally:
            (folder / name).unlink()

    def test_an_attestation_about_another_set_is_refused(self, folder: Path) -> None:
        other = attestation.encode_statement(SUBJECTS, provenance.PROVENANCE_TYPE, {})
        found = with_metadata(verified(folder), set_files.PROVENANCE, signed(other, "ann", "ben"))
        with pytest.raises(FormatError) as caught:
            attested(found)
        assert "another set" in caught.value.message

    def test_an_attestation_by_others_is_refused(self, folder: Path) -> None:
        before = attested(verified(folder)).document(set_files.PROVENANCE)
        forged = signed(before, "mallory", "eve")
        found = with_metadata(verified(folder), set_files.PROVENANCE, forged)
        with pytest.raises(SignatureError):
            attested(found)

    def test_one_kind_in_the_place_of_the_other_is_refused(self, folder: Path) -> None:
        whole = verified(folder)
        swapped = with_metadata(whole, set_files.PROVENANCE, whole.metadata[set_files.SUMMARY])
        with pytest.raises(FormatError) as caught:
            attested(swapped)
        assert "another kind" in caught.value.message

    def test_a_set_without_them_says_so(self, tmp_path: Path) -> None:
        plain = verified(SetBuilder().write(tmp_path / "plain"))
        table = inspection(plain)
        assert table["sbom"] is table["provenance"] is table["summary"] is None
        with pytest.raises(FormatError):
            attested(plain).document(set_files.SBOM)


class TestInspect:
    def arguments(self, folder: Path, root: Path) -> list[str]:
        fingerprint = RootBuilder().trusted().fingerprint
        return [str(folder), "--root", str(root), "--fingerprint", fingerprint]

    def test_the_verified_document_is_printed(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["inspect", *self.arguments(folder, tmp_path), "--provenance"]) == ExitCode.OK
        document = attested(verified(folder)).document(set_files.PROVENANCE)
        assert capsys.readouterr().out == document.decode() + "\n"

    def test_one_document_at_a_time(self, folder: Path, tmp_path: Path) -> None:
        both = ["inspect", *self.arguments(folder, tmp_path), "--provenance", "--sbom"]
        assert main(both) == ExitCode.USAGE
        alone = ["inspect", *self.arguments(folder, tmp_path), "--sbom"]
        assert main(alone) == ExitCode.FORMAT

    def test_people_read_who_made_and_checked_it(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["inspect", *self.arguments(folder, tmp_path)]) == ExitCode.OK
        out = capsys.readouterr().out
        assert "made by    edgekit 0.1.0 from 3 inputs, recipe " in out
        assert "checked    passed, SLSA_BUILD_LEVEL_1, EDGEKIT_SET_V6, by ann, ben" in out

    def test_the_installer_is_left_to_verify(self, folder: Path, tmp_path: Path) -> None:
        with damaged(folder / set_files.INSTALLER, 3):
            assert main(["inspect", *self.arguments(folder, tmp_path)]) == ExitCode.OK
            assert main(["verify", *self.arguments(folder, tmp_path)]) == ExitCode.DIGEST


def with_metadata(whole: VerifiedSet, name: str, data: bytes) -> VerifiedSet:
    """The set with another file in it, as if the release statement listed that one."""
    return replace(whole, metadata=whole.metadata | {name: data})
