//! Which pieces begin at a place of a text: a trie of their bytes.

/// A set of byte strings, each with an id.
#[derive(Debug, Clone)]
pub(super) struct PieceTrie {
    nodes: Vec<Node>,
    edges: Vec<(u8, u32)>, // of all nodes, those of one node side by side, by rising byte
    from_root: Vec<u32>,   // the node behind each first byte, 0 where there is none
}

#[derive(Debug, Clone, Copy)]
struct Node {
    first_edge: u32,
    num_edges: u16,
    id: Option<u32>,
}

impl PieceTrie {
    /// Of strings that are not empty and differ from each other.
    pub(super) fn new<'a>(pieces: impl IntoIterator<Item = (&'a [u8], u32)>) -> Self {
        let mut sorted: Vec<(&[u8], u32)> = pieces.into_iter().collect();
        sorted.sort_unstable();
        let mut trie = Self { nodes: Vec::new(), edges: Vec::new(), from_root: Vec::new() };
        trie.add_node(&sorted, 0);
        let mut from_root = vec![0; 256];
        trie.edges_of(0).iter().for_each(|&(byte, node)| from_root[usize::from(byte)] = node);
        Self { from_root, ..trie }
    }

    /// Adds the node of strings that are equal up to `depth`, and all nodes below. Returns its index.
    fn add_node(&mut self, sorted: &[(&[u8], u32)], depth: usize) -> u32 {
        let (id, longer) = match sorted.split_first() {
            Some((&(piece, id), rest)) if piece.len() == depth => (Some(id), rest),
            _ => (None, sorted),
        };
        let index = self.nodes.len();
        self.nodes.push(Node { first_edge: 0, num_edges: 0, id });
        let edges: Vec<(u8, u32)> = longer
            .chunk_by(|(a, _), (b, _)| a[depth] == b[depth])
            .map(|group| (group[0].0[depth], self.add_node(group, depth + 1)))
            .collect();
        self.nodes[index].first_edge = self.edges.len() as u32;
        self.nodes[index].num_edges = edges.len() as u16; // at most 256
        self.edges.extend(edges);
        index as u32
    }

    fn edges_of(&self, node: u32) -> &[(u8, u32)] {
        let Node { first_edge, num_edges, .. } = self.nodes[node as usize];
        &self.edges[first_edge as usize..first_edge as usize + usize::from(num_edges)]
    }

    fn next(&self, node: u32, byte: u8) -> Option<u32> {
        if node == 0 {
            return Some(self.from_root[usize::from(byte)]).filter(|&node| node != 0);
        }
        let edges = self.edges_of(node);
        edges.iter().find(|(edge, _)| *edge >= byte).filter(|(edge, _)| *edge == byte).map(|&(_, node)| node)
    }

    /// The strings that `text` begins with, shortest first, each as (length, id).
    pub(super) fn prefixes<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut node = 0;
        let steps = text.iter().enumerate().map_while(move |(place, &byte)| {
            node = self.next(node, byte)?;
            Some((place + 1, self.nodes[node as usize].id))
        });
        steps.filter_map(|(len, id)| Some((len, id?)))
    }

    /// Length of the longest string that `text` begins with.
    pub(super) fn longest_prefix(&self, text: &[u8]) -> Option<usize> {
        self.prefixes(text).last().map(|(len, _)| len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_prefixes_are_found_and_nothing_else() {
        let pieces: [&[u8]; 6] = [b"a", b"ab", b"abcd", b"b", b"\xffz", b"abce"];
        let trie = PieceTrie::new(pieces.into_iter().zip(0..));
        let prefixes = |text: &[u8]| trie.prefixes(text).collect::<Vec<_>>();
        assert_eq!(prefixes(b"abcde"), [(1, 0), (2, 1), (4, 2)]);
        assert_eq!(prefixes(b"abce"), [(1, 0), (2, 1), (4, 5)]);
        assert_eq!(prefixes(b"\xffz"), [(2, 4)]);
        assert_eq!(prefixes(b"\xff"), []);
        assert_eq!(prefixes(b""), []);
        assert_eq!(trie.longest_prefix(b"abq"), Some(2));
        assert!(PieceTrie::new([]).longest_prefix(b"a").is_none());
    }
}
