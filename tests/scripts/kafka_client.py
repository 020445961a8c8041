"""A Kafka client that tests talk to by lines of JSON, as starting one of Kafka's own tools takes seconds.

    kafka_client.py '{"bootstrap.servers": "127.0.0.1:9092"}'

The argument holds librdkafka's settings. Each line of standard input is a request, answered by one line of standard
output: {"ok": …} or {"error": {"code": …, "message": …}} with the code as librdkafka names it. It ends with its input.

    {"do": "topics"}                                                          names
    {"do": "create_topic", "topic": …, "partitions": …, "settings": {…}}
    {"do": "grant", "kind": "topic", "name": …, "user": …, "operations": […]} those only, and nobody else any
    {"do": "produce", "topic": …, "records": […]}                             [partition, offset] of each
    {"do": "produce", …, "transaction": …}                                    begins it, unless that id has one open
    {"do": "end", "transaction": …, "commit": true or false}
    {"do": "consume", "topic": …, "records_max": …, "within_s": …}            that many records, fewer when time is up
    {"do": "consume", "topic": …, "records_max": null, "within_s": …}         all up to the end at that moment
    {"do": "follow", "topic": …, "records_max": …, "within_s": …}             further ones than it was told before

A record has key, value, headers ([[name, value]]) and partition, all optional; a consumed one has its offset too. Bytes
are written in hexadecimal. Consuming starts at the first record of every partition, following goes on where it was;
both leave out what is not committed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

PATIENCE_S = 60  # For a broker that is being started again on a busy machine.
REFUSALS = {KafkaError._AUTHENTICATION, KafkaError._SSL}

Place = tuple[int | None, int | None]  # Partition and offset.


class Client:
    """One test's client; what it needs is made with the first request for it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings | {"error_cb": self.note, "log_level": 0}
        self.refusal: KafkaError | None = None
        self.admin = AdminClient(self.settings)
        self.producers: dict[str | None, Producer] = {}
        self.open: set[str] = set()
        self.followed: dict[str, Consumer] = {}

    def note(self, error: KafkaError) -> None:
        """Keeps what no retry mends; librdkafka itself goes on trying."""
        if error.code() in REFUSALS:
            self.refusal = error

    def attempts(self, within_s: float) -> Iterator[float]:
        """Yields the time of each further attempt until the time is up or the broker refuses this client."""
        deadline = time.monotonic() + within_s
        while (left := deadline - time.monotonic()) > 0:
            yield min(left, 0.5)
            if self.refusal:
                raise KafkaException(self.refusal)

    def topics(self) -> list[str]:
        for wait_s in self.attempts(PATIENCE_S):
            try:
                return sorted(self.admin.list_topics(timeout=wait_s).topics)
            except KafkaException:
                self.admin.poll(0)  # Calls `note`.
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no broker answered"))

    def create_topic(self, topic: str, partitions: int, settings: dict[str, str]) -> None:
        self.topics()  # Waits for the broker, which creating does not.
        made = self.admin.create_topics([NewTopic(topic, partitions, 1, config=settings)], operation_timeout=PATIENCE_S)
        made[topic].result()

    def grant(self, kind: str, name: str, user: str, operations: list[str]) -> None:
        self.topics()
        granted = [
            AclBinding(
                ResourceType[kind.upper()],
                name,
                ResourcePatternType.LITERAL,
                f"User:{user}",
                "*",
                AclOperation[operation.upper()],
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]
        for done in self.admin.create_acls(granted).values():
            done.result()

    def produce(self, topic: str, records: list[dict[str, Any]], transaction: str | None = None) -> list[Place | None]:
        producer = self.producer(transaction)
        if transaction is not None and transaction not in self.open:
            producer.begin_transaction()
            self.open.add(transaction)
        places: list[Place | None] = [None] * len(records)
        failures: list[KafkaError] = []
        for index, record in enumerate(records):
            producer.produce(
                topic,
                key=unhex(record.get("key")),
                value=unhex(record.get("value")),
                headers=[(name, unhex(value)) for name, value in record.get("headers") or []],
                partition=-1 if record.get("partition") is None else record["partition"],
                on_delivery=delivery(places, index, failures),
            )
        for wait_s in self.attempts(PATIENCE_S):
            if producer.flush(wait_s) == 0:
                break
        if failures or None in places:
            raise KafkaException(failures[0] if failures else KafkaError(KafkaError._TIMED_OUT, "not delivered"))
        return places

    def producer(self, transaction: str | None) -> Producer:
        if transaction not in self.producers:
            own: dict[str, Any] = {"enable.idempotence": True, "linger.ms": 0, "message.timeout.ms": PATIENCE_S * 1000}
            if transaction is not None:
                own |= {"transactional.id": transaction, "transaction.timeout.ms": PATIENCE_S * 1000}
            producer = Producer(self.settings | own)
            if transaction is not None:
                producer.init_transactions(PATIENCE_S)
            self.producers[transaction] = producer
        return self.producers[transaction]

    def end(self, transaction: str, commit: bool) -> None:
        producer = self.producers[transaction]
        if commit:
            producer.commit_transaction(PATIENCE_S)
        else:
            producer.abort_transaction(PATIENCE_S)
        self.open.discard(transaction)

    def consume(self, topic: str, records_max: int | None, within_s: float) -> list[dict[str, Any]]:
        partitions = self.partitions(topic)
        consumer = self.consumer(topic, partitions, {"enable.partition.eof": True})
        try:
            records: list[dict[str, Any]] = []
            ended: set[int | None] = set()
            for wait_s in self.attempts(within_s):
                message = consumer.poll(wait_s)
                if message is None:
                    continue
                if not (error := message.error()):
                    records.append(described(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
                elif not error.retriable():
                    raise KafkaException(error)
                if len(records) == records_max or (records_max is None and ended >= partitions):
                    return records
            if records_max is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "did not come to the end"))
            return records
        finally:
            consumer.close()

    def follow(self, topic: str, records_max: int, within_s: float) -> list[dict[str, Any]]:
        if topic not in self.followed:
            self.followed[topic] = self.consumer(topic, self.partitions(topic), {})
        records: list[dict[str, Any]] = []
        for wait_s in self.attempts(within_s):
            message = self.followed[topic].poll(wait_s)
            # A broker that has gone comes back, and the time is bounded in any case.
            if message is not None and not message.error():
                records.append(described(message))
            if len(records) == records_max:
                break
        return records

    def consumer(self, topic: str, partitions: set[int], own: dict[str, Any]) -> Consumer:
        consumer = Consumer(
            self.settings
            | {
                "group.id": "tests",  # Wanted even of a consumer that joins none and commits nothing.
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,  # How long the broker keeps the end of a partition to itself.
                "isolation.level": "read_committed",
            }
            | own
        )
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        return consumer

    def partitions(self, topic: str) -> set[int]:
        self.topics()
        metadata = self.admin.list_topics(topic, timeout=PATIENCE_S).topics[topic]
        if metadata.error:
            raise KafkaException(metadata.error)
        return set(metadata.partitions)


def delivery(
    places: list[Place | None], index: int, failures: list[KafkaError]
) -> Callable[[KafkaError | None, Message], None]:
    """Returns what notes the place of one record, or why it has none."""

    def note(error: KafkaError | None, message: Message) -> None:
        if error:
            failures.append(error)
        else:
            places[index] = (message.partition(), message.offset())

    return note


def described(message: Message) -> dict[str, Any]:
    headers: Any = message.headers() or []  # Its type allows forms that are for producing only.
    return {
        "key": tohex(message.key()),
        "value": tohex(message.value()),
        "headers": [(name, tohex(value)) for name, value in headers],
        "partition": message.partition(),
        "offset": message.offset(),
    }


def unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def tohex(value: bytes | str | None) -> str | None:
    if isinstance(value, str):  # As the library hands out some headers.
        value = value.encode()
    return None if value is None else value.hex()


def main() -> None:
    client = Client(json.loads(sys.argv[1]))
    requests: dict[str, Callable[..., Any]] = {
        "topics": client.topics,
        "create_topic": client.create_topic,
        "grant": client.grant,
        "produce": client.produce,
        "end": client.end,
        "consume": client.consume,
        "follow": client.follow,
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": requests[request.pop("do")](**request)}
        except KafkaException as exception:
            error = exception.args[0]
            answer = {"error": {"code": error.name(), "message": error.str()}}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
