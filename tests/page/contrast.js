// The texts on the page whose contrast (WCAG 2.2, 1.4.3) is below a limit: [ratio, text, colour, ground].
(limit) => {
  const parsed = (colour) => {
    const numbers = colour.match(/[\d.]+/g).map(Number);
    return numbers.length === 3 ? [...numbers, 1] : numbers;
  };
  const luminance = ([red, green, blue]) => {
    const linear = [red, green, blue].map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const groundOf = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const ground = parsed(getComputedStyle(at).backgroundColor);
      if (ground[3] === 1) return ground;
      if (ground[3] !== 0) throw new Error(`half transparent ground: ${at.outerHTML.slice(0, 80)}`);
    }
    return [255, 255, 255, 1];
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || parent.closest("script, noscript, option, title")) continue;
    if (!parent.checkVisibility()) continue;
    const style = getComputedStyle(parent);
    const colour = parsed(parent.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const ground = groundOf(parent);
    const [light, dark] = [luminance(colour), luminance(ground)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    seen += 1;
    if (ratio < limit) low.push([ratio, walker.currentNode.data.slice(0, 40), style.color, String(ground)]);
  }
  return { seen, low };
}
