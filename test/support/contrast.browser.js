// Evaluated in the browser by test/observe/page-file.test.ts: texts whose contrast with what is behind them is below WCAG's 4.5 (3 for large ones).
(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const parse = text => {
    if (canvas === null) return [0, 0, 0, 1];
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const luminance = ([red, green, blue]) => {
    const [r, g, b] = [red, green, blue].map(value => {
      const part = value / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let each = element; each !== null; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour[3] > 0.9) return colour;
    }
    return [255, 255, 255, 1];
  };
  const poor = new Set();
  for (const element of document.querySelectorAll('body *')) {
    const hasText = [...element.childNodes].some(
      node => node.nodeType === Node.TEXT_NODE && (node.textContent ?? '').trim() !== '',
    );
    if (!hasText || element.closest('svg, :disabled, .hidden, noscript, .not-reached, .missing') !== null) continue;
    const { color, fontSize, fontWeight, visibility } = getComputedStyle(element);
    if (visibility === 'hidden' || element.getClientRects().length === 0) continue;
    const [a, b] = [luminance(parse(color)), luminance(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large =
      Number.parseFloat(fontSize) >= 24 || (Number.parseFloat(fontSize) >= 18.6 && Number(fontWeight) >= 700);
    if (contrast < (large ? 3 : 4.5))
      poor.add(`${element.className} "${(element.textContent ?? '').slice(0, 20)}": ${contrast.toFixed(2)}`);
  }
  return [...poor];
})();
