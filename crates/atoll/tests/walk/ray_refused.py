"""Tries to submit a job by Ray's own client with headers that must not be enough.

Reads `{"address", "ca", "headers": {name: headers}}` from standard input, so that no key stands on a command line.
Prints by name: the status of the plain request, and the client's exception.
"""

import json
import sys

import requests
from ray.job_submission import JobSubmissionClient

asked = json.load(sys.stdin)
found = {}
for name, headers in asked["headers"].items():
    url = asked["address"] + "/api/jobs/"
    answer = requests.post(url, json={"entrypoint": "true"}, headers=headers, verify=asked["ca"], timeout=30)
    try:
        client = JobSubmissionClient(asked["address"], headers=headers, verify=asked["ca"])
        said = "accepted " + client.submit_job(entrypoint="true")
    except Exception as error:
        said = f"refused: {type(error).__name__}"
    found[name] = {"status": answer.status_code, "client": said}
print(json.dumps(found))
