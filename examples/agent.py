"""An agent for Dagwright in one file: vetoes plans that write what is frozen, such as tables at the end of a month.

    pip install confluent-kafka
    python agent.py localhost:9092 frozen.txt        # a table or URI a line, as public.flights; read anew for each plan

A daemon that is told to ask it has it take part in every negotiation, as `loading@freeze`:

    DAGWRIGHT__AGENTS__PARTIES=extraction@main,transformation@main,loading@main,loading@freeze dagwright serve

`dagwright explain` tells what it said. docs/protocol.md has the messages, which may be JSON, as here.
"""

import json
import pathlib
import socket
import sys
import time
import uuid
from collections import defaultdict

from confluent_kafka import Consumer, Producer

ME = {"role": "loading", "instance": "freeze"}
HOST, LIFE = f"freeze-{socket.gethostname()}", str(uuid.uuid4())
TOPIC = "dagwright.agents.v1"


def vetoes(spec: dict, frozen: set[str]) -> list[dict]:
    """Says which sinks must not be written now."""
    locators = {name: sink["locator"] for name, sink in spec["sinks"].items()}
    places = {name: it["table"]["table"] if "table" in it else it["uri"] for name, it in locators.items()}
    hint = "submit the request again when it is open, or ask whoever froze it"
    problem = {"code": "DW0205", "hint": hint}
    return [problem | {"subject": n, "message": f"{p} is frozen"} for n, p in places.items() if p in frozen]


def answer(body: dict, session: dict, file: pathlib.Path) -> dict | None:
    """Returns what to say to a message; None once the session has ended."""
    match body["type"]:
        case "observe":  # Round 0: the others of this role look at the sinks.
            return {"type": "refuse", "round": 0, "reason": "it only guards what is frozen"}
        case "call_for_proposals" | "conflicts":
            session["spec"] = body.get("spec", session.get("spec"))
            return {"type": "refuse", "round": body["round"], "reason": "it only guards what is frozen"}
        case "award":  # Everybody commits, whether they won anything or not.
            problems = vetoes(session["spec"], set(file.read_text().split("\n")))
            return {"type": "commit_failed", "problems": problems} if problems else {"type": "committed"}
    return None


def listen(consumer: Consumer, partitions: list) -> None:
    """Hears what is said from now on, and from nowhere else."""
    for partition in partitions:
        partition.offset = consumer.get_watermark_offsets(partition)[1]
    consumer.assign(partitions)


def main() -> None:
    """Takes part until it is stopped."""
    brokers, file = sys.argv[1], pathlib.Path(sys.argv[2])
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 0})
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": LIFE})
    consumer.subscribe([TOPIC], on_assign=listen)
    sessions: dict[str, dict] = defaultdict(lambda: {"sent": 0})
    spoke = 0.0
    while True:
        message = consumer.poll(0.5)
        if consumer.assignment() and time.monotonic() - spoke > 2:  # It is there once it hears what is said.
            presence = {"party": ME, "host": HOST, "incarnation": LIFE}
            producer.produce(TOPIC, json.dumps({"presence": presence}), HOST)
            spoke = time.monotonic()
        # Agents that announce themselves in JSON are written to in JSON; Dagwright's own speak protobuf.
        if message is not None and not message.error() and message.value().startswith(b"{"):
            letter = json.loads(message.value()).get("letter")
            if letter and letter["to_host"] == HOST and letter["envelope"]["to"] == ME:
                asked = letter["envelope"]
                key, session = asked["session"], sessions[asked["session"]]
                said = answer(asked["body"], session, file)
                session["sent"] += 1
                envelope = {"session": key, "sequence": session["sent"], "from": ME, "to": asked["from"], "body": said}
                reply = {"letter": {"from_host": HOST, "to_host": letter["from_host"], "envelope": envelope}}
                if said:
                    producer.produce(TOPIC, json.dumps(reply), key)
                else:
                    del sessions[key]
        producer.poll(0)


if __name__ == "__main__":
    main()
