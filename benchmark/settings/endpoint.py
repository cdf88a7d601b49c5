"""Settings of servers to measure, or to start and measure, for the engine endpoint."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator

from benchmark.provisioned_engine import NonEmpty
from benchmark.settings.base import SettingsPart

# Names in a URL's query string that are probably secret.
_SECRET_PARAMETER = re.compile(
    r"(?:^|[-_.]|api|access)(?:key|token|secret|password|passwd|sig|signature)$", re.IGNORECASE
)


class EndpointSettings(SettingsPart):
    """Servers, for the engine endpoint."""

    benchmark_endpoint_urls: list[NonEmpty] = Field(
        [],
        description=(
            "OpenAI-compatible servers for the engine endpoint; empty with benchmark_endpoint_start: "
            "http://127.0.0.1:8000"
        ),
    )
    benchmark_endpoint_api: Literal["auto", "completions", "chat"] = Field(
        "auto", description="auto: completions for prompts of token ids, chat for text"
    )
    benchmark_endpoint_model: str = Field(
        "", description=("the model's name at the server; empty: benchmark_model, which every server has to list then")
    )
    benchmark_endpoint_start: str = Field(
        "", description="command that starts the server on the node, in the foreground; empty: it runs already"
    )
    benchmark_endpoint_health: str = Field(
        "/health", pattern=r"^/\S*$", description="route that answers 200 once the started server is ready"
    )
    benchmark_endpoint_start_timeout_s: int = Field(
        600,
        ge=1,
        description=("seconds until a server's start counts as hung: large weights from a cold disk, then compiling"),
    )
    benchmark_endpoint_query_timeout_s: float = Field(
        300, gt=0, description="seconds after which a query without its whole answer has failed"
    )
    benchmark_endpoint_ca_file: str = Field(
        "",
        description=(
            "certificates (PEM) on the node of the authorities that signed a server's own; empty: the system's"
        ),
    )

    @field_validator("benchmark_endpoint_urls")
    @classmethod
    def _addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if problem := _url_problem(url):
                raise ValueError(problem)
        if len({url.rstrip("/") for url in urls}) < len(urls):
            raise ValueError("the same URL occurs twice")
        return urls


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit or parts.fragment or " " in url:
        return "each must be a server's address such as http://127.0.0.1:8000"
    # Settings are stored in every result.
    if parts.username is not None:
        return "a password in a URL would be stored; set benchmark_endpoint_api_key or benchmark_endpoint_headers"
    secret = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if _SECRET_PARAMETER.search(name)]
    if secret:
        return f"{secret[0]} in a URL would be stored; set it as a header in benchmark_endpoint_headers"
    return None
