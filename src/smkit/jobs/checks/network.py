"""Would a job in the team's own network reach S3? Looks at the subnets, the security groups and the routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smkit.aws_errors import AWS_ERRORS, error_code
from smkit.jobs.checks.calls import cannot_ask
from smkit.jobs.checks.report import Finding, problem, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smkit.config import Settings


def check_network(subnets: Sequence[str], groups: Sequence[str], settings: Settings) -> list[Finding]:
    """Return what is wrong with subnets and security groups.

    Args:
        subnets: Subnet ids.
        groups: Security group ids.
        settings: Whose clients are used.
    """
    client = settings.client("ec2")
    try:
        found_subnets = client.describe_subnets(SubnetIds=list(subnets))["Subnets"]
        found_groups = client.describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
    except AWS_ERRORS as error:
        # InvalidSubnetID.NotFound, InvalidGroup.NotFound, InvalidGroupId.Malformed
        if error_code(error).startswith(("InvalidSubnet", "InvalidGroup", "InvalidSecurityGroup")):
            said = str(getattr(error, "response", {}).get("Error", {}).get("Message", error))
            what = f"{said.rstrip('.')}, in {settings.region} and this account"
            return [problem("network", what, "correct subnets and security_groups")]
        return [cannot_ask("network", error, "read the subnets and security groups")]
    networks = {item["VpcId"] for item in (*found_subnets, *found_groups)}
    if len(networks) > 1:
        what = f"the subnets and security groups lie in several networks: {', '.join(sorted(networks))}"
        return [problem("network", what, "choose all of one VPC")]
    return _check_routes(client, networks.pop(), found_subnets)


def _check_routes(client: Any, network: str, subnets: list[dict[str, Any]]) -> list[Finding]:
    """A job has no public address there, so an internet gateway alone does not help it."""
    try:
        tables = client.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [network]}])["RouteTables"]
    except AWS_ERRORS as error:
        return [cannot_ask("network", error, "read the route tables")]
    closed = [subnet["SubnetId"] for subnet in subnets if not _has_way_out(_table_of(subnet["SubnetId"], tables))]
    if not closed:
        return []
    what = f"{', '.join(closed)} has no route to an S3 endpoint or a NAT gateway: the job could not read its data"
    return [warning("network", what, f"add a gateway endpoint for S3 to {network}; it is free")]


def _table_of(subnet: str, tables: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the route table of a subnet: its own, else the network's main one."""
    main: dict[str, Any] = {}
    for table in tables:
        for association in table.get("Associations", []):
            if association.get("SubnetId") == subnet:
                return table
            if association.get("Main"):
                main = table
    return main


def _has_way_out(table: dict[str, Any]) -> bool:
    for route in table.get("Routes", []):
        to_endpoint = str(route.get("GatewayId", "")).startswith("vpce-")
        ways = ("NatGatewayId", "InstanceId", "NetworkInterfaceId", "TransitGatewayId", "VpcPeeringConnectionId")
        if to_endpoint or any(route.get(way) for way in ways):
            return True
    return False
