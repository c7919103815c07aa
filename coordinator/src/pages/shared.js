  const byId = id => document.getElementById(id);
  const count = number => number.toLocaleString("en", { maximumFractionDigits: number < 10 ? 1 : 0 });
  const duration = seconds => {
    if (seconds === null || seconds === undefined) return "unknown";
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
    return h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
  };
  const size = bytes => {
    if (bytes < 1e4) return `${bytes} B`;
    if (bytes < 1e7) return `${count(bytes / 1e3)} kB`;
    return bytes < 1e10 ? `${count(bytes / 1e6)} MB` : `${count(bytes / 1e9)} GB`;
  };
  const reused = ({ segments, repeated, remembered, cached }) =>
    `${count(100 * (repeated + remembered + cached) / Math.max(1, segments))} % of ${count(segments)}`;
  const cell = (row, text, className = "") => {
    const cell = row.insertCell();
    cell.textContent = text;
    cell.className = className;
  };

  function numbers(list, pairs) {
    list.replaceChildren(...pairs.map(([name, value, className = ""]) => {
      const [group, term, data] = ["div", "dt", "dd"].map(tag => document.createElement(tag));
      [term.textContent, data.textContent, data.className] = [name, value, className];
      group.append(term, data);
      return group;
    }));
  }

  // The rate of `field` over time, from samples of its sum.
  function chart(figure, samples, field, unit) {
    const points = [];
    for (let i = 1; i < samples.length; i++) {
      const seconds = samples[i].seconds - samples[i - 1].seconds;
      if (seconds < 0.5) continue; // too short to be a rate
      const rate = (samples[i][field] - samples[i - 1][field]) / seconds;
      points.push([samples[i].seconds, Math.max(0, rate)]); // a failed attempt takes back its progress
    }
    figure.hidden = points.length < 2;
    if (figure.hidden) return;
    const end = points[points.length - 1][0], top = Math.max(...points.map(([, rate]) => rate)) || 1;
    const at = ([seconds, rate]) => `${(100 * seconds / end).toFixed(2)} ${(100 - 95 * rate / top).toFixed(2)}`;
    figure.querySelector("path").setAttribute("d", "M" + points.map(at).join("L"));
    figure.querySelector("figcaption").textContent =
      `${unit}: at most ${count(top)}, over ${duration(end)}`;
  }
