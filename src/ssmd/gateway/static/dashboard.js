"use strict";
// One page over the public interface: REST for what is held, the WebSocket for what happens. Text goes in as text only.
// A lost connection is taken up with resume_from, so the book shown is never a guess.

const $ = (id) => document.getElementById(id);
const make = (name, text, attributes = {}, ...children) => {
  const node = document.createElement(name);
  if (text !== "" && text !== null && text !== undefined) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const table = (caption, headings, rows, empty = "nothing yet") => {
  if (!rows.length) return make("p", empty, { class: "dim" });
  // A heading that begins with ">" has numbers below it, one with "~" long words.
  const kinds = headings.map((heading) => ({ ">": { class: "number" }, "~": { class: "long" } })[heading[0]] || {});
  const cell = (value, at) => (value instanceof Node ? make("td", "", kinds[at], value) : make("td", value, kinds[at]));
  const head = (heading, at) => make("th", heading.replace(/^[>~]/, ""), { scope: "col", ...kinds[at] });
  return make("table", "", {}, ...(caption ? [make("caption", caption)] : []),
    make("thead", "", {}, make("tr", "", {}, ...headings.map(head))),
    make("tbody", "", {}, ...rows.map((row) => make("tr", "", {}, ...row.map(cell)))));
};
const facts = (pairs) => make("dl", "", { class: "facts" }, ...pairs.map(([name, value]) =>
  make("div", "", {}, make("dt", name), value instanceof Node ? make("dd", "", {}, value) : make("dd", value))));
const many = (number) => Number(number).toLocaleString("en");
const put = (id, node) => $(id).replaceChildren(node);
const time = (ns) => (ns ? new Date(Number(BigInt(ns) / 1000000n)).toISOString().slice(0, 19).replace("T", " ") : "");
const today = () => new Date().toISOString().slice(0, 10);
// Nanoseconds do not fit a JavaScript number: whole numbers of 16 digits and more are read as text.
const parse = (text) => JSON.parse(text.replace(/([:[,]\s*)(-?\d{16,})(?=\s*[,}\]])/g, '$1"$2"'));

let key = sessionStorage.getItem("ssmd-key") || "";
let socket = null;
const TRADES = 15;
let attempts = 0;
let shown = null; // { ticker, bids, asks, trades, at, stream }

const tell = (text, kind) => {
  const node = $("state");
  if (node.textContent !== text) node.textContent = text;
  node.className = kind;
};

class NeedsKey extends Error {}

const get = async (path) => {
  const answer = await fetch(path, { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  const body = parse(await answer.text());
  if (answer.status === 401) throw new NeedsKey(body.detail);
  if (!answer.ok && !("ok" in body)) throw new Error(body.detail || `${path}: ${answer.status}`);
  return body;
};

const askForKey = (why) => {
  if ($("ask").open) return;
  $("ask-why").textContent = why;
  $("ask").showModal();
};
$("ask-form").addEventListener("submit", () => {
  key = $("key").value.trim();
  $("key").value = "";
  sessionStorage.setItem("ssmd-key", key);
  attempts = 0;
  start();
});

const part = async (id, work) => {
  try {
    put(id, await work());
  } catch (error) {
    if (error instanceof NeedsKey) throw error;
    put(id, make("p", error.message, { class: "warn" }));
  }
};

const refresh = async () => {
  await part("feeds", async () => {
    const { feeds } = await get("/v1/feeds");
    return make("div", "", {}, ...feeds.map((one) => {
      const before = refresh.seen || { records: one.records, at: Date.now() - 1000 };
      const rate = Math.max(0, Math.round(((one.records - before.records) * 1000) / Math.max(1, Date.now() - before.at)));
      refresh.seen = { records: one.records, at: Date.now() };
      return facts([["feed", one.feed], ["state", make("span", one.ok ? "live" : one.reason, { class: one.ok ? "good" : "bad" })],
        ["rate", `${many(rate)} records/s`], ["behind", `${many(one.lag_messages)} messages`], ["records", many(one.records)],
        ["markets", many(one.markets)], ["books verified", many(one.verified_markets)], ["last received (UTC)", time(one.last_recv_ns) || "nothing yet"],
        ["open gaps of the connection", one.open_gaps.length]]);
    }));
  });
  await part("system", async () => {
    const { ok, reason, stats } = await get("/v1/status");
    return facts([["gateway", make("span", ok ? "does its job" : reason, { class: ok ? "good" : "bad" })], ["stream position", many(stats.stream_seq)],
      ["clients", many(stats.clients)], ["clients resuming", many(stats.clients_resuming)], ["waiting in queues", `${many(stats.queued_messages)} messages`],
      ["lost by slow clients", many(stats.messages_lost)], ["conflated", many(stats.messages_conflated)], ["holes in the stream", many(stats.holes)],
      ["unreadable messages", many(stats.malformed)], ["state saved", `${many(stats.checkpoints)} times`]]);
  });
  await part("day", async () => {
    const [{ day }, history] = await Promise.all([get(`/v1/days/${today()}`), get(`/v1/history?date=${today()}&limit=1000`)]);
    const lines = history.lines.slice(-8).reverse().map((one) => [time(one.at_ns).slice(11), one.what, one.actor]);
    const by = [["date", day.date], ["status", make("span", day.error || day.status, { class: day.error ? "bad" : day.status === "active" ? "good" : "" })]];
    for (const [name, at, who] of [["start asked for", day.start_requested_ns, day.started_by], ["active since", day.activated_ns], ["end asked for", day.end_requested_ns, day.ended_by],
      ["complete since", day.completed_ns], ["start due", day.start_due_ns], ["end due", day.end_due_ns]]) {
      if (at && time(at)) by.push([name, `${time(at)}${who ? `, ${who}` : ""}`]);
    }
    const steps = day.steps.map((one) => make("li", `${one.phase}: ${one.step}${one.detail ? `, ${one.detail}` : ""} (${time(one.ts_ns).slice(11)})`));
    return make("div", "", {}, facts(by), ...(steps.length ? [make("ol", "", { class: "steps", "aria-label": "Steps done" }, ...steps)] : []),
      table("Latest", ["time (UTC)", "~what", "~who"], lines, "nothing happened yet"));
  });
  await part("markets", async () => {
    const { markets, cursor } = await get("/v1/markets?limit=200");
    $("tickers").replaceChildren(...markets.map((one) => make("option", "", { value: one.ticker })));
    const pick = (ticker) => {
      const button = make("button", ticker, { type: "button" });
      button.addEventListener("click", () => show(ticker));
      return button;
    };
    const rows = markets.map((one) => [pick(one.ticker), one.best_bid, one.best_ask, one.last_price, one.status,
      make("span", one.verified ? "verified" : "not verified", { class: one.verified ? "good" : "warn" })]);
    if (!shown && markets.length) show(markets[0].ticker);
    return table(cursor ? "the first 200" : "", ["ticker", ">bid", ">ask", ">last", "status", "book"], rows);
  });
  await part("coverage", async () => {
    const { tickers } = await get(`/v1/quality?date=${today()}&limit=200`);
    return table("", ["ticker", "of what was subscribed"], tickers.map((one) => {
      const parts = ["verified", "repaired", "unverifiable", "missing"].map((name) => [name, Number(one[`${name}_ns`])]);
      const whole = parts.reduce((sum, [, ns]) => sum + ns, 0) || 1;
      const words = parts.map(([name, ns]) => `${name} ${((100 * ns) / whole).toFixed(2)} %`).join(", ");
      const strip = make("div", "", { class: "strip", role: "img", "aria-label": words, title: words });
      for (const [name, ns] of parts) {
        const piece = make("span", "", { class: `s-${name}` });
        piece.style.width = `${(100 * ns) / whole}%`;
        strip.append(piece);
      }
      return [one.ticker, strip];
    }), "no interval of today has been assessed yet");
  });
  await part("gaps", async () => {
    const { gaps } = await get(`/v1/gaps?date=${today()}&limit=100`);
    return table("", ["from (UTC)", "to", "cause", "~evidence"], gaps.reverse().map((one) => [time(one.start_ns),
      one.end_ns ? time(one.end_ns) : make("span", "open", { class: "bad" }), one.cause, one.evidence]), "no gaps today");
  });
  await part("days", async () => table("", ["date", "status"], (await get("/v1/days?limit=1000")).days.slice(-14).reverse().map((one) => [one.date, one.status])));
  await part("inventory", async () => table("", ["date", "type", "kind", "status", ">segments", ">records", ">bytes"],
    (await get("/v1/inventory?limit=1000")).lines.slice(-30).reverse().map((one) => [one.date, one.type, one.kind, one.status, many(one.segments), many(one.records), many(one.size_bytes)])));
};

// Exact decimals: sums of sizes as BigInt at the finer of the two scales.
const add = (left, right) => {
  const digits = (text) => (text.split(".")[1] || "").length;
  const scale = Math.max(digits(left), digits(right));
  const whole = (text) => BigInt(text.replace(".", "") + "0".repeat(scale - digits(text)));
  const sum = whole(left) + whole(right);
  const text = (sum < 0n ? -sum : sum).toString().padStart(scale + 1, "0");
  return (sum < 0n ? "-" : "") + (scale ? `${text.slice(0, -scale)}.${text.slice(-scale)}` : text);
};
const isZero = (text) => /^-?0*\.?0*$/.test(text);

const take = (message) => {
  if (message.type === "ack") {
    if (shown) shown.stream = message.stream || shown.stream;
    return;
  }
  if (message.type === "error") {
    if (shown && message.id !== null) {
      // Cannot be taken up where it was (retention, another stream): begin anew, with a snapshot.
      shown.at = 0;
      socket.close();
    }
    return;
  }
  if (message.type === "heartbeat" && shown && shown.at) shown.at = message.stream_seq;
  if (!shown || (message.ticker !== shown.ticker && message.ticker !== "*")) return;
  if (message.stream_seq) shown.at = message.stream_seq;
  if (message.type === "snapshot") {
    shown.bids = new Map(message.bids);
    shown.asks = new Map(message.asks);
    trust(message.verified, message.verified ? "verified" : `not verified: ${message.reason}`);
  } else if (message.type === "book") {
    const side = message.side === "bid" ? shown.bids : shown.asks;
    const size = message.meaning === "change" ? add(side.get(message.price) || "0", message.size) : message.size;
    if (isZero(size)) side.delete(message.price);
    else side.set(message.price, size);
  } else if (message.type === "trade") {
    shown.trades.unshift(message);
    shown.trades.length = Math.min(shown.trades.length, TRADES);
  } else if (message.type === "gap" && message.state === "opened") {
    trust(false, `not verified: gap, ${message.cause}`);
  }
};

const trust = (ok, text) => {
  $("trust").textContent = `${shown.ticker}: book ${text}`;
  $("trust").className = ok ? "good" : "warn";
};

const draw = () => {
  if (!shown) return;
  const sorted = (side, sign) => [...side].filter(([, size]) => !size.startsWith("-")).sort((a, b) => sign * (Number(a[0]) - Number(b[0]))).slice(0, 10);
  const bids = sorted(shown.bids, -1);
  const asks = sorted(shown.asks, 1);
  const rows = Array.from({ length: Math.max(bids.length, asks.length) }, (_, at) => [
    bids[at] ? bids[at][1] : "", bids[at] ? bids[at][0] : "", asks[at] ? asks[at][0] : "", asks[at] ? asks[at][1] : ""]);
  put("book", table("Book", [">size", ">bid", ">ask", ">size"], rows, "no book yet"));
  put("trades", table("Trades", ["time (UTC)", ">price", ">size", "taker"],
    shown.trades.map((one) => [time(one.ts_event_ns || one.ts_recv_ns).slice(11), one.price, one.size, one.aggressor]), "no trades yet"));
};

const subscribe = () => {
  if (!shown || !socket || socket.readyState !== WebSocket.OPEN) return;
  const again = shown.at ? { resume_from: shown.at, stream: shown.stream } : {};
  socket.send(JSON.stringify({ id: 2, cmd: "subscribe", tickers: [shown.ticker], kinds: ["book", "trade", "gap"], ...again }));
};

const show = (ticker) => {
  if (shown && socket && socket.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({ id: 1, cmd: "unsubscribe", tickers: [shown.ticker] }));
  }
  shown = { ticker, bids: new Map(), asks: new Map(), trades: [], at: 0, stream: shown ? shown.stream : "" };
  $("ticker").value = ticker;
  trust(false, "not here yet");
  $("about").textContent = "";
  subscribe();
  draw();
  describe(shown).catch(() => { $("about").textContent = "nothing is known of it yet"; });
};

// What is held of a market before the first live message: its contract, its last trades.
const describe = async (mine) => {
  const path = `/v1/markets/${encodeURIComponent(mine.ticker)}`;
  const [market, held] = await Promise.all([get(path), get(`${path}/trades?limit=${TRADES}`)]);
  if (shown !== mine) return;
  const contract = market.contract || {};
  $("about").textContent = [contract.title, market.market_status, time(market.close_ns) && `closes ${time(market.close_ns)} UTC`,
    market.spread && `spread ${market.spread}`].filter(Boolean).join(" \u00b7 ");
  const live = mine.trades.filter((one) => one.stream_seq > held.coverage.as_of_stream_seq);
  mine.trades = [...live, ...held.trades].slice(0, TRADES);
  draw();
};
$("pick").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("ticker").value) show($("ticker").value);
});

const connect = () => {
  if (socket && socket.readyState <= WebSocket.OPEN) return;
  const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/stream`;
  const mine = new WebSocket(url, key ? ["ssmd.v1", `ssmd.key.${key}`] : ["ssmd.v1"]);
  socket = mine;
  let pending = false;
  mine.onopen = () => {
    attempts = 0;
    tell("live", "good");
    subscribe();
  };
  mine.onmessage = (event) => {
    parse(event.data).forEach(take);
    if (!pending) {
      pending = true;
      requestAnimationFrame(() => { pending = false; draw(); });
    }
  };
  mine.onclose = () => {
    if (socket !== mine) return;
    attempts += 1;
    tell("disconnected: what is shown may be old; trying again", "bad");
    setTimeout(connect, Math.min(10000, 300 * 2 ** Math.min(attempts, 5)));
  };
};

let timer = 0;
const start = async () => {
  clearTimeout(timer);
  try {
    await refresh();
    connect();
  } catch (error) {
    if (error instanceof NeedsKey) {
      tell("an API key is needed", "warn");
      askForKey(error.message);
      return;
    }
    tell(`the gateway does not answer: ${error.message}`, "bad");
  }
  timer = setTimeout(start, 3000);
};
start();
