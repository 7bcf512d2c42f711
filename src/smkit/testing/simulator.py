"""IAM's simulator of policies, which moto lacks: the sandbox checks no permissions, so everything is allowed."""

from __future__ import annotations

import re
import uuid
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

_OPERATION = "SimulatePrincipalPolicy"
_ACTION, _RESOURCE = re.compile(r"ActionNames\.member\.\d+"), re.compile(r"ResourceArns\.member\.\d+")


def simulate(body: bytes) -> bytes | None:
    """Return the answer to a SimulatePrincipalPolicy, None where the request is another.

    Args:
        body: Of a request in the Query protocol, or of any other.
    """
    if b"Action=" + _OPERATION.encode() not in body:
        return None
    form = parse_qsl(body.decode(errors="replace"))
    if ("Action", _OPERATION) not in form:
        return None
    actions = [value for name, value in form if _ACTION.fullmatch(name)]
    resources = [value for name, value in form if _RESOURCE.fullmatch(name)] or ["*"]
    results = "".join(_allowed(action, resource) for action in actions for resource in resources)
    return (
        f'<{_OPERATION}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><{_OPERATION}Result>'
        f"<IsTruncated>false</IsTruncated><EvaluationResults>{results}</EvaluationResults></{_OPERATION}Result>"
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></{_OPERATION}Response>"
    ).encode()


def _allowed(action: str, resource: str) -> str:
    return (
        f"<member><EvalActionName>{escape(action)}</EvalActionName>"
        f"<EvalResourceName>{escape(resource)}</EvalResourceName><EvalDecision>allowed</EvalDecision>"
        "<MatchedStatements/><MissingContextValues/></member>"
    )
