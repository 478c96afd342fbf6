//! What is left of a path: its own bytes, and the texts of the symlinks met on the way.

/// One component, as the path names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An ordinary name.
    Normal,
    /// `.`
    Dot,
    /// `..`
    DotDot,
}

/// A component, and where in the path it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Component<'t> {
    pub(super) kind: Kind,
    pub(super) name: &'t [u8],
    /// No other component follows, in this text or in those around it.
    pub(super) last: bool,
    /// Slashes follow.
    pub(super) slash: bool,
}

/// The remaining components, from left to right.
///
/// Every text but the innermost still has a component, so that a component is the last one if nothing but
/// slashes follows it in the innermost text and there is no other.
#[derive(Debug)]
pub(super) struct Text<'p> {
    path: &'p [u8],
    at: usize,
    /// Texts of symlinks, innermost last, each with how far it has been read.
    links: Vec<(Vec<u8>, usize)>,
}

/// Where the first component at or behind `at` begins.
fn skip_slashes(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|b| **b == b'/').count()
}

impl<'p> Text<'p> {
    pub(super) fn new(path: &'p [u8]) -> Self {
        Self {
            path,
            at: 0,
            links: Vec::new(),
        }
    }

    /// Goes on with the text of a symlink, and then with what followed the link.
    pub(super) fn insert(&mut self, text: Vec<u8>) {
        while let Some((inner, at)) = self.links.last() {
            if skip_slashes(inner, *at) < inner.len() {
                break;
            }
            self.links.pop();
        }
        self.links.push((text, 0));
    }

    /// The next component; `None` when nothing but slashes is left.
    pub(super) fn next(&mut self) -> Option<Component<'_>> {
        while let Some((inner, at)) = self.links.last() {
            if skip_slashes(inner, *at) < inner.len() {
                break;
            }
            self.links.pop();
        }
        let outer = match self.links.len() {
            0 => false,
            1 => skip_slashes(self.path, self.at) < self.path.len(),
            // By the invariant, the text around the innermost has a component.
            _ => true,
        };
        let (text, at) = match self.links.last_mut() {
            Some((text, at)) => (text.as_slice(), at),
            None => (self.path, &mut self.at),
        };
        let start = skip_slashes(text, *at);
        let rest = text.get(start..).unwrap_or_default();
        let len = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
        let (name, behind) = rest.split_at(len);
        *at = start + len;
        let kind = match name {
            b"" => return None,
            b"." => Kind::Dot,
            b".." => Kind::DotDot,
            _ => Kind::Normal,
        };
        Some(Component {
            kind,
            name,
            last: !outer && behind.iter().all(|b| *b == b'/'),
            slash: !behind.is_empty(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The components as text: a star behind the last one.
    fn rest(text: &mut Text<'_>) -> String {
        let mut out = String::new();
        while let Some(c) = text.next() {
            out += std::str::from_utf8(c.name).unwrap();
            if c.slash {
                out += "/";
            }
            if c.last {
                out += "*";
            }
            out += " ";
        }
        out
    }

    #[test]
    fn components_from_left_to_right() {
        assert_eq!(rest(&mut Text::new(b"a//b/./..")), "a/ b/ ./ ..* ");
        assert_eq!(rest(&mut Text::new(b"/a/")), "a/* ");
        assert_eq!(rest(&mut Text::new(b"a///")), "a/* ");
        assert_eq!(rest(&mut Text::new(b"///")), "");
    }

    #[test]
    fn a_link_goes_before_what_followed_it() {
        let mut text = Text::new(b"l/x/");
        assert_eq!(text.next().map(|c| c.last), Some(false));
        text.insert(b"/p/m".to_vec());
        assert_eq!(text.next().map(|c| c.name == b"p"), Some(true));
        assert_eq!(
            text.next().map(|c| (c.name == b"m", c.last)),
            Some((true, false))
        );
        text.insert(b"n/".to_vec());
        assert_eq!(rest(&mut text), "n/ x/* ");
    }

    #[test]
    fn the_end_of_a_last_links_text_is_the_end() {
        let mut text = Text::new(b"a/l/");
        text.next();
        assert_eq!(text.next().map(|c| (c.last, c.slash)), Some((true, true)));
        text.insert(b"b".to_vec());
        assert_eq!(rest(&mut text), "b* ");
        text.insert(b"/".to_vec());
        assert_eq!(rest(&mut text), "");
    }
}
