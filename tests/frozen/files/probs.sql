-- fedlas: {"fedlas": "0.1.0", "format": "fedlas.export/1", "columns": ["p_ape", "p_bee", "p_cat"], "adds": ["calibrated_p_ape", "calibrated_p_bee", "calibrated_p_cat"], "unit": "probs", "classes": ["ape", "bee", "cat"]}
-- Replace predictions by your table, and add the columns to keep, such as an id, to the last list.
-- Names are quoted as "name"; BigQuery, Databricks and MySQL take `name`, and SQL Server LOG for LN.
-- For SQLite and PostgreSQL: sed 's/ AS (SELECT/ AS MATERIALIZED (SELECT/'; others need no such word.
-- A missing score gives a missing result. Scores are not checked: probabilities must lie in [0, 1].
WITH
fedlas_s0 AS (SELECT t.*,
    "p_ape" * 1.0e0 AS fedlas_0,
    "p_bee" * 1.0e0 AS fedlas_1,
    "p_cat" * 1.0e0 AS fedlas_2
  FROM predictions t),
fedlas_s1 AS (SELECT t.*,
    (fedlas_0 + fedlas_1 + fedlas_2) AS fedlas_3
  FROM fedlas_s0 t),
fedlas_s2 AS (SELECT t.*,
    fedlas_0 / fedlas_3 AS fedlas_4,
    fedlas_1 / fedlas_3 AS fedlas_5,
    fedlas_2 / fedlas_3 AS fedlas_6
  FROM fedlas_s1 t),
fedlas_s3 AS (SELECT t.*,
    LN(CASE WHEN fedlas_4 < 1.1754943508222875e-38 THEN 1.1754943508222875e-38 ELSE fedlas_4 END) AS fedlas_7,
    LN(CASE WHEN fedlas_5 < 1.1754943508222875e-38 THEN 1.1754943508222875e-38 ELSE fedlas_5 END) AS fedlas_8,
    LN(CASE WHEN fedlas_6 < 1.1754943508222875e-38 THEN 1.1754943508222875e-38 ELSE fedlas_6 END) AS fedlas_9
  FROM fedlas_s2 t),
fedlas_s4 AS (SELECT t.*,
    CASE WHEN fedlas_7 >= fedlas_8 THEN fedlas_7 ELSE fedlas_8 END AS fedlas_10,
    fedlas_9 AS fedlas_11
  FROM fedlas_s3 t),
fedlas_s5 AS (SELECT t.*,
    CASE WHEN fedlas_10 >= fedlas_11 THEN fedlas_10 ELSE fedlas_11 END AS fedlas_12
  FROM fedlas_s4 t),
fedlas_s6 AS (SELECT t.*,
    fedlas_7 - fedlas_12 AS fedlas_13,
    fedlas_8 - fedlas_12 AS fedlas_14,
    fedlas_9 - fedlas_12 AS fedlas_15
  FROM fedlas_s5 t),
fedlas_s7 AS (SELECT t.*,
    CASE WHEN fedlas_13 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_13) END AS fedlas_16,
    CASE WHEN fedlas_14 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_14) END AS fedlas_17,
    CASE WHEN fedlas_15 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_15) END AS fedlas_18
  FROM fedlas_s6 t),
fedlas_s8 AS (SELECT t.*,
    LN(fedlas_16 + fedlas_17 + fedlas_18) AS fedlas_19
  FROM fedlas_s7 t),
fedlas_s9 AS (SELECT t.*,
    fedlas_13 - fedlas_19 AS fedlas_20,
    fedlas_14 - fedlas_19 AS fedlas_21,
    fedlas_15 - fedlas_19 AS fedlas_22
  FROM fedlas_s8 t),
fedlas_s10 AS (SELECT t.*,
    fedlas_7 / 1.6836938362410918e0 AS fedlas_23,
    fedlas_8 / 1.6836938362410918e0 AS fedlas_24,
    fedlas_9 / 1.6836938362410918e0 AS fedlas_25
  FROM fedlas_s9 t),
fedlas_s11 AS (SELECT t.*,
    CASE WHEN fedlas_23 >= fedlas_24 THEN fedlas_23 ELSE fedlas_24 END AS fedlas_26,
    fedlas_25 AS fedlas_27
  FROM fedlas_s10 t),
fedlas_s12 AS (SELECT t.*,
    CASE WHEN fedlas_26 >= fedlas_27 THEN fedlas_26 ELSE fedlas_27 END AS fedlas_28
  FROM fedlas_s11 t),
fedlas_s13 AS (SELECT t.*,
    fedlas_23 - fedlas_28 AS fedlas_29,
    fedlas_24 - fedlas_28 AS fedlas_30,
    fedlas_25 - fedlas_28 AS fedlas_31
  FROM fedlas_s12 t),
fedlas_s14 AS (SELECT t.*,
    CASE WHEN fedlas_29 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_29) END AS fedlas_32,
    CASE WHEN fedlas_30 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_30) END AS fedlas_33,
    CASE WHEN fedlas_31 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_31) END AS fedlas_34
  FROM fedlas_s13 t),
fedlas_s15 AS (SELECT t.*,
    LN(fedlas_32 + fedlas_33 + fedlas_34) AS fedlas_35
  FROM fedlas_s14 t),
fedlas_s16 AS (SELECT t.*,
    fedlas_29 - fedlas_35 AS fedlas_36,
    fedlas_30 - fedlas_35 AS fedlas_37,
    fedlas_31 - fedlas_35 AS fedlas_38
  FROM fedlas_s15 t),
fedlas_s17 AS (SELECT t.*,
    CASE WHEN fedlas_7 >= fedlas_8 THEN fedlas_7 ELSE fedlas_8 END AS fedlas_39,
    fedlas_9 AS fedlas_40
  FROM fedlas_s16 t),
fedlas_s18 AS (SELECT t.*,
    CASE WHEN fedlas_39 >= fedlas_40 THEN fedlas_39 ELSE fedlas_40 END AS fedlas_41
  FROM fedlas_s17 t),
fedlas_s19 AS (SELECT t.*,
    fedlas_7 - fedlas_41 AS fedlas_42,
    fedlas_8 - fedlas_41 AS fedlas_43,
    fedlas_9 - fedlas_41 AS fedlas_44
  FROM fedlas_s18 t),
fedlas_s20 AS (SELECT t.*,
    CASE WHEN fedlas_42 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_42) END AS fedlas_45,
    CASE WHEN fedlas_43 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_43) END AS fedlas_46,
    CASE WHEN fedlas_44 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_44) END AS fedlas_47
  FROM fedlas_s19 t),
fedlas_s21 AS (SELECT t.*,
    LN(fedlas_45 + fedlas_46 + fedlas_47) AS fedlas_48
  FROM fedlas_s20 t),
fedlas_s22 AS (SELECT t.*,
    fedlas_42 - fedlas_48 AS fedlas_49,
    fedlas_43 - fedlas_48 AS fedlas_50,
    fedlas_44 - fedlas_48 AS fedlas_51
  FROM fedlas_s21 t),
fedlas_s23 AS (SELECT t.*,
    CASE WHEN fedlas_49 < (-87.3365447505531e0) THEN (-87.3365447505531e0) ELSE fedlas_49 END AS fedlas_52,
    CASE WHEN fedlas_50 < (-87.3365447505531e0) THEN (-87.3365447505531e0) ELSE fedlas_50 END AS fedlas_53,
    CASE WHEN fedlas_51 < (-87.3365447505531e0) THEN (-87.3365447505531e0) ELSE fedlas_51 END AS fedlas_54
  FROM fedlas_s22 t),
fedlas_s24 AS (SELECT t.*,
    fedlas_52 / 1.6836938362410918e0 AS fedlas_55,
    fedlas_53 / 1.6836938362410918e0 AS fedlas_56,
    fedlas_54 / 1.6836938362410918e0 AS fedlas_57
  FROM fedlas_s23 t),
fedlas_s25 AS (SELECT t.*,
    CASE WHEN fedlas_55 >= fedlas_56 THEN fedlas_55 ELSE fedlas_56 END AS fedlas_58,
    fedlas_57 AS fedlas_59
  FROM fedlas_s24 t),
fedlas_s26 AS (SELECT t.*,
    CASE WHEN fedlas_58 >= fedlas_59 THEN fedlas_58 ELSE fedlas_59 END AS fedlas_60
  FROM fedlas_s25 t),
fedlas_s27 AS (SELECT t.*,
    fedlas_55 - fedlas_60 AS fedlas_61,
    fedlas_56 - fedlas_60 AS fedlas_62,
    fedlas_57 - fedlas_60 AS fedlas_63
  FROM fedlas_s26 t),
fedlas_s28 AS (SELECT t.*,
    CASE WHEN fedlas_61 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_61) END AS fedlas_64,
    CASE WHEN fedlas_62 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_62) END AS fedlas_65,
    CASE WHEN fedlas_63 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_63) END AS fedlas_66
  FROM fedlas_s27 t),
fedlas_s29 AS (SELECT t.*,
    LN(fedlas_64 + fedlas_65 + fedlas_66) AS fedlas_67
  FROM fedlas_s28 t),
fedlas_s30 AS (SELECT t.*,
    fedlas_61 - fedlas_67 AS fedlas_68,
    fedlas_62 - fedlas_67 AS fedlas_69,
    fedlas_63 - fedlas_67 AS fedlas_70
  FROM fedlas_s29 t),
fedlas_s31 AS (SELECT t.*,
    CASE WHEN fedlas_68 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_68) END AS fedlas_71,
    CASE WHEN fedlas_69 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_69) END AS fedlas_72,
    CASE WHEN fedlas_70 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_70) END AS fedlas_73
  FROM fedlas_s30 t),
fedlas_s32 AS (SELECT t.*,
    LN(0.9917355371900827e0 * fedlas_71 + 0.0027548209366391185e0) AS fedlas_74,
    LN(0.9917355371900827e0 * fedlas_72 + 0.0027548209366391185e0) AS fedlas_75,
    LN(0.9917355371900827e0 * fedlas_73 + 0.0027548209366391185e0) AS fedlas_76
  FROM fedlas_s31 t),
fedlas_s33 AS (SELECT t.*,
    ((-0.07273447256120336e0) + 1.0157472301123267e0 * fedlas_74 + 0.013478566041841288e0 * fedlas_75 + (-0.1444880391234459e0) * fedlas_76) AS fedlas_77,
    (0.019752383392851014e0 + (-0.07353362163216194e0) * fedlas_74 + 0.9718775297175142e0 * fedlas_75 + 0.12510386207968507e0 * fedlas_76) AS fedlas_78,
    (0.05301855479199413e0 + 0.06561127707616e0 * fedlas_74 + 0.0005720225760363417e0 * fedlas_75 + 1.038643250596464e0 * fedlas_76) AS fedlas_79
  FROM fedlas_s32 t),
fedlas_s34 AS (SELECT t.*,
    CASE WHEN fedlas_77 >= fedlas_78 THEN fedlas_77 ELSE fedlas_78 END AS fedlas_80,
    fedlas_79 AS fedlas_81
  FROM fedlas_s33 t),
fedlas_s35 AS (SELECT t.*,
    CASE WHEN fedlas_80 >= fedlas_81 THEN fedlas_80 ELSE fedlas_81 END AS fedlas_82
  FROM fedlas_s34 t),
fedlas_s36 AS (SELECT t.*,
    fedlas_77 - fedlas_82 AS fedlas_83,
    fedlas_78 - fedlas_82 AS fedlas_84,
    fedlas_79 - fedlas_82 AS fedlas_85
  FROM fedlas_s35 t),
fedlas_s37 AS (SELECT t.*,
    CASE WHEN fedlas_83 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_83) END AS fedlas_86,
    CASE WHEN fedlas_84 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_84) END AS fedlas_87,
    CASE WHEN fedlas_85 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_85) END AS fedlas_88
  FROM fedlas_s36 t),
fedlas_s38 AS (SELECT t.*,
    LN(fedlas_86 + fedlas_87 + fedlas_88) AS fedlas_89
  FROM fedlas_s37 t),
fedlas_s39 AS (SELECT t.*,
    fedlas_83 - fedlas_89 AS fedlas_90,
    fedlas_84 - fedlas_89 AS fedlas_91,
    fedlas_85 - fedlas_89 AS fedlas_92
  FROM fedlas_s38 t),
fedlas_s40 AS (SELECT t.*,
    CASE WHEN fedlas_20 >= fedlas_36 THEN fedlas_20 ELSE fedlas_36 END AS fedlas_93,
    fedlas_90 AS fedlas_94
  FROM fedlas_s39 t),
fedlas_s41 AS (SELECT t.*,
    CASE WHEN fedlas_93 >= fedlas_94 THEN fedlas_93 ELSE fedlas_94 END AS fedlas_95
  FROM fedlas_s40 t),
fedlas_s42 AS (SELECT t.*,
    fedlas_20 - fedlas_95 AS fedlas_96,
    fedlas_36 - fedlas_95 AS fedlas_97,
    fedlas_90 - fedlas_95 AS fedlas_98
  FROM fedlas_s41 t),
fedlas_s43 AS (SELECT t.*,
    CASE WHEN fedlas_96 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_96) END AS fedlas_99,
    CASE WHEN fedlas_97 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_97) END AS fedlas_100,
    CASE WHEN fedlas_98 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_98) END AS fedlas_101
  FROM fedlas_s42 t),
fedlas_s44 AS (SELECT t.*,
    fedlas_95 + LN((0.3228724379488699e0 * fedlas_99 + 0.6760285500169578e0 * fedlas_100 + 0.001099012034172406e0 * fedlas_101) + 1.0e-300) AS fedlas_102
  FROM fedlas_s43 t),
fedlas_s45 AS (SELECT t.*,
    CASE WHEN fedlas_21 >= fedlas_37 THEN fedlas_21 ELSE fedlas_37 END AS fedlas_103,
    fedlas_91 AS fedlas_104
  FROM fedlas_s44 t),
fedlas_s46 AS (SELECT t.*,
    CASE WHEN fedlas_103 >= fedlas_104 THEN fedlas_103 ELSE fedlas_104 END AS fedlas_105
  FROM fedlas_s45 t),
fedlas_s47 AS (SELECT t.*,
    fedlas_21 - fedlas_105 AS fedlas_106,
    fedlas_37 - fedlas_105 AS fedlas_107,
    fedlas_91 - fedlas_105 AS fedlas_108
  FROM fedlas_s46 t),
fedlas_s48 AS (SELECT t.*,
    CASE WHEN fedlas_106 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_106) END AS fedlas_109,
    CASE WHEN fedlas_107 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_107) END AS fedlas_110,
    CASE WHEN fedlas_108 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_108) END AS fedlas_111
  FROM fedlas_s47 t),
fedlas_s49 AS (SELECT t.*,
    fedlas_105 + LN((0.3228724379488699e0 * fedlas_109 + 0.6760285500169578e0 * fedlas_110 + 0.001099012034172406e0 * fedlas_111) + 1.0e-300) AS fedlas_112
  FROM fedlas_s48 t),
fedlas_s50 AS (SELECT t.*,
    CASE WHEN fedlas_22 >= fedlas_38 THEN fedlas_22 ELSE fedlas_38 END AS fedlas_113,
    fedlas_92 AS fedlas_114
  FROM fedlas_s49 t),
fedlas_s51 AS (SELECT t.*,
    CASE WHEN fedlas_113 >= fedlas_114 THEN fedlas_113 ELSE fedlas_114 END AS fedlas_115
  FROM fedlas_s50 t),
fedlas_s52 AS (SELECT t.*,
    fedlas_22 - fedlas_115 AS fedlas_116,
    fedlas_38 - fedlas_115 AS fedlas_117,
    fedlas_92 - fedlas_115 AS fedlas_118
  FROM fedlas_s51 t),
fedlas_s53 AS (SELECT t.*,
    CASE WHEN fedlas_116 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_116) END AS fedlas_119,
    CASE WHEN fedlas_117 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_117) END AS fedlas_120,
    CASE WHEN fedlas_118 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_118) END AS fedlas_121
  FROM fedlas_s52 t),
fedlas_s54 AS (SELECT t.*,
    fedlas_115 + LN((0.3228724379488699e0 * fedlas_119 + 0.6760285500169578e0 * fedlas_120 + 0.001099012034172406e0 * fedlas_121) + 1.0e-300) AS fedlas_122
  FROM fedlas_s53 t),
fedlas_s55 AS (SELECT t.*,
    (0.0e0 + 1.0e0 * fedlas_102) AS fedlas_123,
    (0.0e0 + 1.0e0 * fedlas_112) AS fedlas_124,
    (0.0e0 + 1.0e0 * fedlas_122) AS fedlas_125
  FROM fedlas_s54 t),
fedlas_s56 AS (SELECT t.*,
    CASE WHEN fedlas_123 >= fedlas_124 THEN fedlas_123 ELSE fedlas_124 END AS fedlas_126,
    fedlas_125 AS fedlas_127
  FROM fedlas_s55 t),
fedlas_s57 AS (SELECT t.*,
    CASE WHEN fedlas_126 >= fedlas_127 THEN fedlas_126 ELSE fedlas_127 END AS fedlas_128
  FROM fedlas_s56 t),
fedlas_s58 AS (SELECT t.*,
    fedlas_123 - fedlas_128 AS fedlas_129,
    fedlas_124 - fedlas_128 AS fedlas_130,
    fedlas_125 - fedlas_128 AS fedlas_131
  FROM fedlas_s57 t),
fedlas_s59 AS (SELECT t.*,
    CASE WHEN fedlas_129 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_129) END AS fedlas_132,
    CASE WHEN fedlas_130 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_130) END AS fedlas_133,
    CASE WHEN fedlas_131 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_131) END AS fedlas_134
  FROM fedlas_s58 t),
fedlas_s60 AS (SELECT t.*,
    LN(fedlas_132 + fedlas_133 + fedlas_134) AS fedlas_135
  FROM fedlas_s59 t),
fedlas_s61 AS (SELECT t.*,
    fedlas_129 - fedlas_135 AS fedlas_136,
    fedlas_130 - fedlas_135 AS fedlas_137,
    fedlas_131 - fedlas_135 AS fedlas_138
  FROM fedlas_s60 t),
fedlas_s62 AS (SELECT t.*,
    CASE WHEN fedlas_136 >= fedlas_137 THEN fedlas_136 ELSE fedlas_137 END AS fedlas_139,
    fedlas_138 AS fedlas_140
  FROM fedlas_s61 t),
fedlas_s63 AS (SELECT t.*,
    CASE WHEN fedlas_139 >= fedlas_140 THEN fedlas_139 ELSE fedlas_140 END AS fedlas_141
  FROM fedlas_s62 t),
fedlas_s64 AS (SELECT t.*,
    fedlas_136 - fedlas_141 AS fedlas_142,
    fedlas_137 - fedlas_141 AS fedlas_143,
    fedlas_138 - fedlas_141 AS fedlas_144
  FROM fedlas_s63 t),
fedlas_s65 AS (SELECT t.*,
    CASE WHEN fedlas_142 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_142) END AS fedlas_145,
    CASE WHEN fedlas_143 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_143) END AS fedlas_146,
    CASE WHEN fedlas_144 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_144) END AS fedlas_147
  FROM fedlas_s64 t),
fedlas_s66 AS (SELECT t.*,
    LN(fedlas_145 + fedlas_146 + fedlas_147) AS fedlas_148
  FROM fedlas_s65 t),
fedlas_s67 AS (SELECT t.*,
    fedlas_142 - fedlas_148 AS fedlas_149,
    fedlas_143 - fedlas_148 AS fedlas_150,
    fedlas_144 - fedlas_148 AS fedlas_151
  FROM fedlas_s66 t),
fedlas_s68 AS (SELECT t.*,
    CASE WHEN fedlas_149 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_149) END AS fedlas_152,
    CASE WHEN fedlas_150 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_150) END AS fedlas_153,
    CASE WHEN fedlas_151 < (-700.0e0) THEN 0.0e0 ELSE EXP(fedlas_151) END AS fedlas_154
  FROM fedlas_s67 t)
SELECT
  "p_ape",
  "p_bee",
  "p_cat",
  fedlas_152 AS "calibrated_p_ape",
  fedlas_153 AS "calibrated_p_bee",
  fedlas_154 AS "calibrated_p_cat"
FROM fedlas_s68 t
