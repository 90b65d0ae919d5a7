"""Addresses among the things Python programs are made of."""

from __future__ import annotations

import copy
import json
import pickle
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from pydantic import BaseModel, ValidationError

import waypost
from waypost import Address, AddressError, parse_address_list, parse_mailbox

TEXTS = ["ann@example.com", "pump7@[IPv6:fd00::7]", "cam@[192.0.2.9]", '"a b"@example.com']


@pytest.mark.parametrize("text", TEXTS)
def test_str_hash_copy_and_pickle(text: str) -> None:
    address = Address.parse(text)
    assert str(address) == f"{address}" == text
    for again in (Address.parse(text), copy.deepcopy(address), pickle.loads(pickle.dumps(address))):
        assert again == address
        assert hash(again) == hash(address)
        assert str(again) == text
    assert address != text
    with pytest.raises(AttributeError):
        address.local_part = "bob"  # type: ignore[misc]


def test_order_is_by_host() -> None:
    texts = ["b@x.test", "a@y.test", "a@x.test", "a@[192.0.2.1]"]
    assert [str(one) for one in sorted(map(Address.parse, texts))] == [
        *("a@[192.0.2.1]", "a@x.test", "b@x.test", "a@y.test")
    ]
    assert max(map(Address.parse, texts)) >= Address.parse("a@y.test")


class Alarm(BaseModel):
    to: Address
    also: list[Address] = []


def test_a_pydantic_field() -> None:
    alarm = Alarm.model_validate_json('{"to": "Alerts@[192.0.2.1]", "also": ["b@x.test"]}')
    assert alarm.to == Address.parse("Alerts@[192.0.2.1]")
    assert Alarm(to=alarm.to).to is alarm.to
    assert json.loads(alarm.model_dump_json()) == {"to": "Alerts@[192.0.2.1]", "also": ["b@x.test"]}
    assert Alarm.model_json_schema()["properties"]["to"]["type"] == "string"
    with pytest.raises(ValidationError, match="needs its tag"):
        Alarm.model_validate({"to": "a@[2001:db8::1]"})
    with pytest.raises(ValidationError):
        Alarm.model_validate({"to": 5})


@pytest.mark.parametrize("text", [*TEXTS, "Jörg <j@x.test>", '"Q., J" <j@[192.0.2.1]>'])
def test_the_bridge_to_email_message(text: str) -> None:
    mailbox = parse_mailbox(text)
    message = EmailMessage()
    message["To"] = mailbox.as_header_address()
    message["Cc"] = (mailbox.as_header_address(), parse_mailbox("b@x.test").as_header_address())
    again = message_from_bytes(message.as_bytes(), policy=policy.default)
    [read] = parse_address_list(str(again["To"]))
    assert isinstance(read, waypost.Mailbox)
    assert (read.address, read.display_name) == (mailbox.address, mailbox.display_name)
    assert len(parse_address_list(str(again["Cc"]))) == 2


def test_what_cannot_be_sent_to_is_not_bridged() -> None:
    with pytest.raises(AddressError):
        parse_mailbox("a@under_score.test").as_header_address()
