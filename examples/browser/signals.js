// Shows the newest arbitrage signals; begins with the last 20, and connects again after a break.
const relay = new URLSearchParams(location.search).get("relay") ?? "127.0.0.1:9750";
const [state, list] = ["state", "signals"].map((id) => document.getElementById(id));

function show(text) {
  list.prepend(Object.assign(document.createElement("li"), { textContent: text }));
  while (list.children.length > 50) list.lastChild.remove();
}

function connect(start) {
  const socket = new WebSocket(`ws://${relay}/signals?types=21&format=json${start}`);
  socket.onopen = () => (state.textContent = "live");
  socket.onmessage = ({ data }) => {
    for (const message of JSON.parse(data)) {
      if (message.control === "gap") show(`missed: ${message.reason}`);
      if (message.control) continue;
      const { net_profit_usd_q8, spread_bps } = message.tlvs.find((tlv) => tlv.type === 21).fields;
      show(`source ${message.publisher}: ${spread_bps} bps, ${net_profit_usd_q8} US dollars`);
    }
  };
  socket.onclose = ({ reason }) => {
    state.textContent = `gone${reason && `: ${reason}`}`;
    setTimeout(connect, 1000, "");
  };
}

connect("&last=20");
