"""What the API does: one table of operations, each with its right; routes, checks and OpenAPI follow it.

An operation that is not in the table cannot be asked for, and its handler is reached only by an asker who has
the right that the table names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import structlog
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.front.admission.rights import Principal, Right
from gateway.front.http import api_shapes, call_shapes, house_shapes
from gateway.front.http.problems import refusal

Handler = Callable[[Request], Awaitable[Response]]
Needs = Right | Literal["any token", "nothing"]
"""`any token`: whoever may ask at all (on loopback everybody); `nothing`: it is open."""

Shape = TypeVar("Shape", bound=BaseModel)

log = structlog.get_logger("http")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that can be asked for. `path` has its parameters in braces."""

    name: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    path: str
    needs: Needs
    does: str
    """One sentence."""
    query: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    """Parameters behind the question mark: name, what it is, JSON Schema."""
    asks: type[BaseModel] | None = None
    """The same, of whoever checks them by a shape."""
    headers: tuple[tuple[str, str], ...] = ()
    """Header fields that it must have, and what they are."""
    takes: type[BaseModel] | None = None
    """The body, in JSON."""
    takes_also: tuple[str, ...] = ()
    """Media types of a body that is no JSON."""
    gives: type[BaseModel] | None = None
    """The answer, in JSON."""
    gives_also: tuple[str, ...] = ()
    """Media types of an answer that is no JSON."""
    status: int = 200
    refuses: tuple[int, ...] = ()
    """Statuses of its own problems; those that any request may meet are not among them."""
    is_door: bool = False
    """Its handler comes with a route of its own, where the house has one (`doors`)."""


PATH_PARAMETERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "call_id": ("a call's id", {"type": "string", "pattern": "^[A-Za-z0-9._~-]{1,64}$"}),
    "own_call": ("what stands in the Location of a call that was placed", {"type": "string"}),
    "name": ("a user's name", {"type": "string", "maxLength": 64}),
    "trunk": ("a trunk's name", {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,39}$"}),
    "day": ("the day of a recording", {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}),
    "file": ("a recording's file", {"type": "string", "pattern": r"^[A-Za-z0-9._~-]{1,90}\.wav$"}),
    "token_id": ("a token's id: what stands between its first two _", {"type": "string"}),
}
"""What stands in braces in a path, and its JSON Schema."""

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        name="who_am_i", method="GET", path="/api/me", needs="any token", gives=api_shapes.Me,
        does="Tells whose the token is, its role and its rights.",
    ),
    Operation(
        name="describe", method="GET", path="/api/openapi.json", needs="any token",
        does="Gives this description.", gives=api_shapes.Description,
    ),
    # ── a caller's own call: WHIP (RFC 9725) ──
    Operation(
        name="place_call", method="POST", path="/api/call", needs="calls.place", status=201,
        does="Places a call from a browser: an SDP offer becomes an answer, and the call's own Location.",
        query=(("dialled", "the number; demo unless given", {"type": "string", "maxLength": 64}),),
        takes=api_shapes.Offer, takes_also=("application/sdp",),
        gives=api_shapes.Placed, gives_also=("application/sdp",), refuses=(400, 404, 415, 502, 503),
    ),
    Operation(
        name="ask_offers", method="OPTIONS", path="/api/call", needs="calls.place", status=204,
        does="Tells what may be posted (Accept-Post).",
    ),
    Operation(
        name="trickle", method="PATCH", path="/api/call/{own_call}", needs="calls.place", status=204,
        does="Adds ICE candidates to the caller's own call, or restarts its ICE (200, our fragment).",
        headers=(("If-Match", "the ETag of the answer, or * for a restart"),),
        takes_also=("application/trickle-ice-sdpfrag",), refuses=(400, 404, 412, 415, 422, 428, 502, 503),
    ),
    Operation(
        name="leave_call", method="DELETE", path="/api/call/{own_call}", needs="calls.place", status=204,
        does="Hangs up the caller's own call.",
        query=(("why", "no-sound: nothing was heard", {"type": "string", "maxLength": 16}),),
        refuses=(404, 502, 503),
    ),
    Operation(
        name="ice_servers", method="GET", path="/api/ice", needs="calls.place",
        gives=api_shapes.IceServerList,
        does="Lists STUN and TURN servers for a browser.",
    ),
    Operation(
        name="embed", method="POST", path="/api/embed", needs="calls.place", takes=api_shapes.EmbedWish,
        does="Makes a token of minutes for the call button on another page.", gives=api_shapes.EmbedToken,
        refuses=(400, 403),
    ),
    # ── calls ──
    Operation(
        name="list_calls", method="GET", path="/api/calls", needs="calls.read", gives=call_shapes.CallPage,
        does="Lists calls page by page: running ones, then the others, or as they shall be sorted.",
        asks=call_shapes.CallsAsked, refuses=(400, 502, 503),
    ),
    Operation(
        name="list_refused", method="GET", path="/api/refused", needs="calls.read",
        gives=call_shapes.RefusedPage,
        does="Lists calls that were not taken, and why, page by page, the newest first; those alike are one.",
        asks=call_shapes.RefusedAsked, refuses=(400, 502, 503),
    ),
    Operation(
        name="show_call", method="GET", path="/api/calls/{call_id}", needs="calls.read",
        does="Shows one call with its turns and events, and what was wrong with it, or why it was not taken.",
        gives=call_shapes.ShownCall, refuses=(404, 502, 503),
    ),
    Operation(
        name="call_course", method="GET", path="/api/calls/{call_id}/course", needs="calls.read",
        does="Shows one call to time: also its sound, SIP messages, log lines and recordings.",
        gives=call_shapes.CallCourse, refuses=(404, 502, 503),
    ),
    Operation(
        name="end_call", method="DELETE", path="/api/calls/{call_id}", needs="calls.end", status=204,
        does="Hangs a call up.", refuses=(404, 502, 503),
    ),
    Operation(
        name="say", method="POST", path="/api/calls/{call_id}/say", needs="calls.takeover", status=204,
        does="Has a running conversation's voice say a text, word for word.",
        takes=call_shapes.SayWish, refuses=(400, 404, 409),
    ),
    Operation(
        name="transfer", method="POST", path="/api/calls/{call_id}/transfer", needs="calls.takeover",
        does="Hands the caller of a running conversation to a target that the call's plan names.",
        status=204, takes=call_shapes.TransferWish, refuses=(400, 404, 409),
    ),
    Operation(
        name="mute", method="PUT", path="/api/calls/{call_id}/mute", needs="calls.takeover", status=204,
        does="Has a conversation's voice be still and hear nothing, or go on.",
        takes=call_shapes.MuteWish, refuses=(400, 404, 409),
    ),
    Operation(
        name="list_recordings", method="GET", path="/api/recordings", needs="recordings.read",
        does="Lists what callers left, the newest first.", asks=api_shapes.RecordingsAsked,
        gives=api_shapes.RecordingList, refuses=(400,),
    ),
    Operation(
        name="hear_recording", method="GET", path="/api/recordings/{day}/{file}", needs="recordings.read",
        does="Gives a recording; parts of it by Range.", gives_also=("audio/wav",), refuses=(404, 416),
    ),
    # ── telephones' users ──
    Operation(
        name="list_users", method="GET", path="/api/users", needs="users.write", gives=api_shapes.UserList,
        does="Lists the users that telephones log in as.", refuses=(503,),
    ),
    Operation(
        name="put_user", method="PUT", path="/api/users/{name}", needs="users.write",
        takes=api_shapes.UserWish,
        does="Adds a user, or gives it another password; nobody gives a right that he has not.",
        gives=api_shapes.MadeUser, refuses=(400, 403),
    ),
    Operation(
        name="remove_user", method="DELETE", path="/api/users/{name}", needs="users.write", status=204,
        does="Removes a user.", refuses=(404,),
    ),
    Operation(
        name="list_telephones", method="GET", path="/api/telephones", needs="users.write",
        does="Lists the telephones that are registered, and whether they answer.",
        gives=house_shapes.TelephoneList,
    ),
    # ── trunks ──
    Operation(
        name="list_trunks", method="GET", path="/api/trunks", needs="calls.read",
        gives=house_shapes.TrunkList,
        does="Lists the trunks, whether calls can leave by each, and which are out of service.",
    ),
    Operation(
        name="put_trunk", method="PUT", path="/api/trunks/{trunk}/service", needs="trunks.write", status=204,
        does="Takes a trunk out of service (no new call comes or goes by it), or puts it back.",
        takes=house_shapes.ServiceWish, refuses=(400, 404, 503),
    ),
    # ── what happens, as it happens ──
    Operation(
        name="follow_events", method="GET", path="/api/events", needs="calls.read", is_door=True,
        does="Tells what happens in calls, as server-sent events, for as long as one listens.",
        query=(
            ("call_id", "of one call", {"type": "string", "maxLength": 128}),
            ("type", "of this type, or of several", {"type": "array", "items": {"type": "string"}}),
            ("after", "start: from the oldest that is kept; an event's id: after that", {"type": "string"}),
        ),
        gives_also=("text/event-stream",), refuses=(400, 503),
    ),
    # ── tokens ──
    Operation(
        name="list_tokens", method="GET", path="/api/tokens", needs="tokens.write",
        gives=api_shapes.TokenList,
        does="Lists all tokens that there ever were, without their secrets.", refuses=(503,),
    ),
    Operation(
        name="make_token", method="POST", path="/api/tokens", needs="tokens.write", status=201,
        does="Makes a token, and tells its secret this once; nobody gives a right that he has not.",
        takes=api_shapes.TokenWish, gives=api_shapes.MadeToken, refuses=(400, 403, 503),
    ),
    Operation(
        name="revoke_token", method="DELETE", path="/api/tokens/{token_id}", needs="tokens.write", status=204,
        does="Revokes a token: from now on it opens nothing, and what it listens to ends.",
        refuses=(404, 503),
    ),
    # ── what the house does ──
    Operation(
        name="show_house", method="GET", path="/api/house", needs="calls.read", gives=house_shapes.HouseTold,
        does="Tells how the whole house is: parts, processes, places, refused calls, who is told events.",
    ),
    Operation(
        name="list_routes", method="GET", path="/api/dialplans", needs="calls.read",
        gives=house_shapes.PlanShown,
        does="Tells the version of the dialplans in force, and lists their routes, without their texts.",
    ),
    Operation(
        name="try_route", method="GET", path="/api/dialplans/route", needs="calls.read",
        does="Tells which route a call would take, and why not those before it; places none.",
        asks=house_shapes.RouteAsked, gives=house_shapes.RouteTold, refuses=(400,),
    ),
    Operation(
        name="check_plans", method="POST", path="/api/dialplans/check", needs="plans.reload",
        does="Tries whether the dialplans that lie in their folder now would load.",
        gives=house_shapes.PlanTried, refuses=(409,),
    ),
    Operation(
        name="reload", method="POST", path="/api/reload", needs="plans.reload",
        gives=house_shapes.ReloadShown,
        does="Reads plans, users, trunks, certificates and webhooks anew; what does not load stays (409).",
        refuses=(409,),
    ),
    Operation(
        name="list_voices", method="GET", path="/api/voices", needs="calls.read",
        gives=house_shapes.VoiceList,
        does="Lists the voices that may be used, by name.", refuses=(503,),
    ),
    # ── for machines, and for callers ──
    Operation(
        name="synthetic", method="GET", path="/synthetic/{call_id}", needs="nothing", refuses=(404,),
        does="Gives the signed statement that a call's voice is synthetic.", gives=api_shapes.SpeechClaims,
    ),
    Operation(
        name="metrics", method="GET", path="/metrics", needs="calls.read", gives_also=("text/plain",),
        does="Gives the metrics in Prometheus' text form.",
    ),
    Operation(
        name="alive", method="GET", path="/healthz", needs="nothing", gives=api_shapes.Alive,
        does="Tells that the front lives.",
    ),
    Operation(
        name="ready", method="GET", path="/readyz", needs="nothing", gives=api_shapes.Ready, refuses=(),
        does="Tells whether calls would be taken (503 with the same body: no), and how each part is.",
    ),
)  # fmt: skip


def routes(handlers: Mapping[str, Handler], counted: Callable[[str], None]) -> list[Route]:
    """A route for each path, with all its methods. `handlers` are by the operation's name.

    Raises `KeyError` for an operation without a handler.
    """
    by_path: dict[str, dict[str, Handler]] = {}
    for one in OPERATIONS:
        if one.is_door:
            continue
        by_path.setdefault(one.path, {})[one.method] = _guarded(one, handlers[one.name], counted)
    return [
        Route(path, _dispatched(methods), methods=list(methods), name=path)
        for path, methods in by_path.items()
    ]


def doors(given: Iterable[Route], counted: Callable[[str], None]) -> list[Route]:
    """Routes that come from elsewhere: those below /api have their operation in the table, and its right.

    Raises `KeyError` or `ValueError` for one that is not there: nobody reaches what no right stands before.
    """
    known: dict[tuple[str, str], Operation] = {
        (one.path, one.method): one for one in OPERATIONS if one.is_door
    }
    guarded = []
    for route in given:
        if route.path.startswith("/api/"):
            methods = sorted((route.methods or set()) - {"HEAD"})
            (method,) = methods
            guard = _guarded(known[route.path, method], route.endpoint, counted)
            route = Route(route.path, guard, methods=methods)
        guarded.append(route)
    return guarded


def _dispatched(methods: Mapping[str, Handler]) -> Handler:
    async def dispatch(request: Request) -> Response:
        return await methods["GET" if request.method == "HEAD" else request.method](request)

    return dispatch


def _guarded(operation: Operation, handler: Handler, counted: Callable[[str], None]) -> Handler:
    """`handler`, for askers who have the right only."""
    if operation.needs == "any token" or operation.needs == "nothing":
        return handler
    right: Right = operation.needs

    async def guard(request: Request) -> Response:
        asker: Principal = request.state.asker
        if asker.may(right):
            return await handler(request)
        counted(right)
        what = {"operation": operation.name, "asker": asker.name, "id": asker.token_id}
        log.warning("right.missing", right=right, **what)
        if not asker.token_id:  # on loopback: a token may help
            return refusal(401, f"a token with the right {right} is needed", right=right)
        return refusal(403, f"{asker.name!r} ({asker.role}) has not the right {right}", right=right)

    return guard


async def body_of(request: Request, shape: type[Shape]) -> Shape | Response:
    """The request's JSON body in that shape, or the problem that says what is wrong with it."""
    try:
        return shape.model_validate_json(await request.body())
    except ValidationError as error:
        return _refused(error)


def query_of(request: Request, shape: type[Shape], several: Collection[str] = ()) -> Shape | Response:
    """The request's query in that shape, or the problem that says what is wrong with it.

    `several`: names that may stand there more than once.
    """
    asked = dict(request.query_params) | {name: request.query_params.getlist(name) for name in several}
    try:
        return shape.model_validate(asked)
    except ValidationError as error:
        return _refused(error)


def _refused(error: ValidationError) -> Response:
    """What is wrong with a body or a query, without what stood in it: that may be a secret."""
    wrong = error.errors(include_input=False, include_url=False)
    said = [f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in wrong]
    return refusal(400, "; ".join(said[:5]))
