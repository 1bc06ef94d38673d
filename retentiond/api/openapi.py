"""`/openapi.json`: OpenAPI 3.1 made of the same resources and models that requests and answers go through.

pydantic writes JSON Schema 2020-12, which is the dialect of OpenAPI 3.1, so that only the paths are put together here.
No library serves for that: aiohttp-pydantic (2.6) writes OpenAPI 3.0.0, rewrites the schemas for it, and answers faults
in a shape of its own; aiohttp-apispec and aiohttp-swagger3 take marshmallow or YAML in docstrings, and know 2 or 3.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from retentiond import __version__
from retentiond.api import asked, models
from retentiond.api.problems import CONTENT_TYPE
from retentiond.api.resources import KEY, KEY_HEADER, PREFIX, Resource
from retentiond.api.sessions import COOKIE, CSRF_HEADER

_REF = "#/components/schemas/{model}"
_SECURITY: list[dict[str, list[str]]] = [{"token": []}, {"session": []}]


def document(resources: Iterable[Resource]) -> dict[str, Any]:
    """The whole document."""
    found = tuple(resources)
    used: set[type[BaseModel]] = {asked.LogIn, models.Problem, models.Session}
    used.update(each.body for each in found if each.body is not None)
    used.update(model for each in found for model in each.answers.values())
    _, schemas = models_json_schema(
        [(model, "validation") for model in sorted(used, key=_name)], by_alias=True, ref_template=_REF
    )
    paths: dict[str, dict[str, Any]] = {}
    for each in found:
        paths.setdefault(PREFIX + each.path, {})[each.method.lower()] = _operation(each)
    paths[PREFIX + "/session"] = _session()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "retentiond",
            "version": __version__,
            "description": "Makes a privacy policy's retention promises true, and proves it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "responses": {"Problem": _problem()},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            },
        },
        "security": _SECURITY,
    }


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _operation(resource: Resource) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): _response(status, model, plain=resource.plain) for status, model in resource.answers.items()
    }
    if not resource.changes:
        responses["304"] = {"description": "As it was, by If-None-Match"}
    found: dict[str, Any] = {
        "operationId": _id(resource),
        "summary": resource.summary,
        "description": f"For {_who(resource)}.",
        "parameters": _parameters(resource),
        "responses": {**responses, "default": {"$ref": "#/components/responses/Problem"}},
    }
    if resource.body is not None:
        required = any(field.is_required() for field in resource.body.model_fields.values())
        found["requestBody"] = _body(resource.body, required=required)
    return found


def _parameters(resource: Resource) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": 200},
        }
        for name in re.findall(r"\{(\w+)\}", resource.path)
    ]
    if resource.query is not None:
        schema = resource.query.model_json_schema(ref_template=_REF)
        required = schema.get("required", [])
        for name, each in schema["properties"].items():
            found.append({"name": name, "in": "query", "required": name in required, "schema": _without_null(each)})
    if resource.changes:
        key = {"type": "string", "pattern": f"^{KEY.pattern}$"}
        found.append({"name": KEY_HEADER, "in": "header", "required": False, "schema": key})
        found.append({"name": CSRF_HEADER, "in": "header", "required": False, "schema": {"type": "string"}})
    else:
        found.append({"name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"}})
    return found


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter's schema: one that is left out has no value, and none is null."""
    found = {name: value for name, value in schema.items() if name not in ("default", "title")}
    if "anyOf" in found:
        (only,) = [each for each in found.pop("anyOf") if each != {"type": "null"}]
        found.update(only)
    return found


def _response(status: int, model: type[BaseModel], *, plain: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _ref(model)}}
    if plain:
        content["text/plain"] = {"schema": {"type": "string"}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _body(model: type[BaseModel], *, required: bool) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": _ref(model)}}}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _problem() -> dict[str, Any]:
    return {
        "description": "What is wrong, where, and how to mend it (RFC 9457)",
        "content": {CONTENT_TYPE: {"schema": _ref(models.Problem)}},
    }


def _session() -> dict[str, Any]:
    default = {"default": {"$ref": "#/components/responses/Problem"}}
    csrf = {"name": CSRF_HEADER, "in": "header", "required": False, "schema": {"type": "string"}}
    return {
        "get": {
            "operationId": "get_session",
            "summary": "Who is asking",
            "responses": {"200": _response(200, models.Session), **default},
        },
        "post": {
            "operationId": "post_session",
            "summary": "Log in with a token, for a cookie",
            "security": [],
            "requestBody": _body(asked.LogIn, required=True),
            "responses": {"201": _response(201, models.Session), **default},
        },
        "delete": {
            "operationId": "delete_session",
            "summary": "Log out",
            "security": [{"session": []}],
            "parameters": [csrf],
            "responses": {"204": {"description": "Logged out"}, **default},
        },
    }


def _who(resource: Resource) -> str:
    return "every role" if resource.needs == "viewer" else f"the roles {resource.needs} and admin"


def _id(resource: Resource) -> str:
    return f"{resource.method.lower()}_{re.sub(r'[^a-z]+', '_', resource.path).strip('_')}"
